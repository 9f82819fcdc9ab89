"""How often selections that end early choose another policy, and how many episodes they save.

    python benchmarks/early_selection.py    # 200 synthetic runs of each kind, about half a minute

A synthetic run has 50 candidates. Their true mean returns rise to a plateau and their true mean costs fall to
about the limit of 10, with the noise of learning on both. The 10 test episodes of a candidate are drawn
around its means; ``spread`` is the standard deviation of their returns, in parts of the plateau. Each
candidate is judged twice: on all of its episodes, and with an early end as in ``fsrl_ext.trainer.selection``.
``loss`` is the true return of the policy that all episodes choose, less that of the policy that is chosen
with early ends, as a mean over all runs and in parts of the plateau.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report.files import write_json
from fsrl_ext.trainer.selection import Evaluation, is_clearly_not_best

CANDIDATES, EPISODES, LIMIT, PLATEAU = 50, 10, 10.0, 400.0
Noise = Callable[[np.random.Generator, int], np.ndarray]


def bimodal(generator: np.random.Generator, count: int) -> np.ndarray:
    """Most episodes succeed, and one in five fails altogether; mean 0, standard deviation 1."""
    return (generator.random(count) < 0.8) * 2.5 - 2.0


NOISES: dict[str, Noise] = {
    "normal": lambda generator, count: generator.normal(size=count),
    "bimodal": bimodal,
    "heavy tails": lambda generator, count: generator.standard_t(3, size=count) / np.sqrt(3),
}
"""Noise of mean 0 and standard deviation 1 that the returns of a candidate's episodes have."""


def episodes_of(
    generator: np.random.Generator, noise: Noise, spread: float
) -> tuple[np.ndarray, list[Evaluation]]:
    """True mean returns ``[50]`` of a run's candidates, and all episodes of each."""
    progress = 1 - np.exp(-np.arange(1, CANDIDATES + 1) / 8)
    means = PLATEAU * progress + generator.normal(size=CANDIDATES) * 0.03 * PLATEAU
    costs = 60 * np.exp(-np.arange(CANDIDATES) / 6) + 6 + 3 * generator.normal(size=CANDIDATES)
    costs = np.maximum(costs, 0.1)
    evaluations = [
        Evaluation(
            env_step=i,
            returns=mean + spread * PLATEAU * noise(generator, EPISODES),
            # Counts of costly steps, which vary more than those of independent steps would.
            costs=generator.negative_binomial(2, 2 / (2 + cost), size=(EPISODES, 1)).astype(float),
            cost_limit=(LIMIT,),
        )
        for i, (mean, cost) in enumerate(zip(means, costs, strict=True))
    ]
    return means, evaluations


def first(evaluation: Evaluation, count: int) -> Evaluation:
    """The first episodes of an evaluation."""
    return Evaluation(
        env_step=evaluation.env_step,
        returns=evaluation.returns[:count],
        costs=evaluation.costs[:count],
        cost_limit=evaluation.cost_limit,
    )


def chosen(evaluations: list[Evaluation], min_episodes: int) -> tuple[int, int]:
    """The candidate that is the best one in the end, and the number of episodes that were played."""
    best: Evaluation | None = None
    played = 0
    for whole in evaluations:
        evaluation = first(whole, min_episodes)
        if not is_clearly_not_best(evaluation, best):
            evaluation = whole
        played += len(evaluation.returns)
        if evaluation.is_better_than(best):
            best = evaluation
    assert best is not None
    return best.env_step, played


def main() -> None:
    """Simulates runs and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--min-episodes", type=int, default=5)
    parser.add_argument("--json", help="write the numbers into this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'noise':12} {'spread':>6}  {'other policy':>12}  {'loss':>8}  {'episodes':>8}")
    for name, noise in NOISES.items():
        for spread in (0.02, 0.1, 0.3):
            generator = np.random.default_rng(0)
            other, loss, played = 0, 0.0, 0
            for _ in range(options.runs):
                means, evaluations = episodes_of(generator, noise, spread)
                reference, _ = chosen(evaluations, EPISODES)
                choice, count = chosen(evaluations, options.min_episodes)
                other += choice != reference
                loss += (means[reference] - means[choice]) / PLATEAU
                played += count
            row = {
                "noise": name,
                "spread": spread,
                "other_policy": other / options.runs,
                "loss": loss / options.runs,
                "episodes": played / options.runs / (CANDIDATES * EPISODES),
            }
            rows.append(row)
            print(
                f"{name:12} {spread:6.2f}  {row['other_policy']:12.2%}  {row['loss']:8.5f}  "
                f"{row['episodes']:8.0%}"
            )
    if options.json:
        write_json(Path(options.json), {"runs": options.runs, "rows": rows}, indent=1)


if __name__ == "__main__":
    main()
