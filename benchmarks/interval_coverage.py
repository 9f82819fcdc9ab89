"""Measures how often intervals over a few seeds hold the true mean: Student t against a percentile bootstrap.

    python benchmarks/interval_coverage.py

Every experiment draws one value per seed and makes both intervals, with a stated coverage of 95%; the table
shows the share of the experiments whose interval holds the true mean. Three kinds of values are drawn:

- normal: returns, as Student's t assumes;
- skewed: costs of which most are small, from an exponential distribution;
- rare: four policies of five cost nothing, one of five costs 20 to 40.

Costs are cut at 0, as in the tables of this project. Of rare costs a sample often has none; no interval that
is made from the sample alone can then hold their mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from fsrl_ext.report import text_table
from fsrl_ext.report.statistics import COVERAGE, cost_interval, mean_interval

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
VALUES: dict[str, tuple[Draw, float]] = {  # how values are drawn, and their true mean
    "normal returns": (lambda rng, shape: rng.normal(400.0, 30.0, shape), 400.0),
    "skewed costs": (lambda rng, shape: rng.exponential(5.0, shape), 5.0),
    "rare costs": (lambda rng, shape: (rng.random(shape) < 0.2) * rng.uniform(20.0, 40.0, shape), 6.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10], help="seeds of an experiment")
    parser.add_argument("--experiments", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=1_000, help="of the bootstrap")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for name, (draw, mean) in VALUES.items():
        for seeds in options.seeds:
            samples = draw(rng, (options.experiments, seeds))
            student, bootstrap = student_t(samples), percentile_bootstrap(samples, options.resamples, rng)
            none = (samples == 0).all(1)
            rows.append(
                [
                    name,
                    str(seeds),
                    f"{covered(student, mean):.1%}",
                    f"{covered(bootstrap, mean):.1%}",
                    f"{none.mean():.1%}",
                ]
            )
    header = ["values", "seeds", "Student t", "percentile bootstrap", "no seed has a cost"]
    print(text_table(header, rows))
    print(
        f"share of {options.experiments:,} experiments whose {COVERAGE:.0%} interval holds the true mean "
        f"(± {2 * np.sqrt(COVERAGE * (1 - COVERAGE) / options.experiments):.1%} by chance)"
    )


def student_t(samples: np.ndarray) -> np.ndarray:
    """Return the ends ``[experiments, 2]`` of the intervals of the rows, as the tables print them."""
    make = cost_interval if samples.min() >= 0 else mean_interval
    return np.array([make(row) for row in samples.tolist()])


def percentile_bootstrap(samples: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the ends ``[experiments, 2]`` of the intervals of the rows."""
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    seeds = samples.shape[1]
    return np.array(
        [np.quantile(row[rng.integers(seeds, size=(resamples, seeds))].mean(1), ends) for row in samples]
    )


def covered(intervals: np.ndarray, mean: float) -> float:
    """Return the share of the intervals that hold the mean."""
    return float(((intervals[:, 0] <= mean) & (mean <= intervals[:, 1])).mean())


if __name__ == "__main__":
    main()
