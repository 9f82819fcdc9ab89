"""Makes the values of the package rliable that tests/report/test_aggregate.py compares with.

    python -m venv rliable && rliable/bin/pip install rliable "numpy<2" "pandas<3"
    rliable/bin/python benchmarks/rliable_reference.py > tests/report/data/rliable.json

rliable brings heavy packages (arch, statsmodels, seaborn), so it is no dependency of the tests:
the file holds the inputs, what rliable makes of them, and its version.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import numpy as np
from rliable import library, metrics

RESAMPLES = 20_000
THRESHOLDS = np.array([0.0, 0.25, 0.5, 0.75, 0.9, 1.0])


def main() -> None:
    rng = np.random.default_rng(7)
    cases = {
        "5 seeds, 3 tasks": (rng.random((5, 3)), rng.random((5, 3)) ** 2),
        "3 seeds, 4 tasks": (rng.random((3, 4)), rng.random((3, 4)) + 0.2),
        "lost runs": (rng.random((4, 2)) * (rng.random((4, 2)) > 0.5), rng.random((4, 2))),
        "ties": (rng.integers(0, 3, (6, 2)) / 2.0, rng.integers(0, 3, (6, 2)) / 2.0),
        "all lost": (np.zeros((3, 2)), np.zeros((3, 2))),
        "other numbers of seeds": (rng.random((7, 2)), rng.random((4, 2))),
    }
    out = {
        "rliable": version("rliable"),
        "resamples": RESAMPLES,
        "thresholds": THRESHOLDS.tolist(),
        "cases": [],
    }
    for name, (one, other) in cases.items():
        pair = {"one": one, "other": other}
        iqm = {k: metrics.aggregate_iqm(v) for k, v in pair.items()}
        _, ends = library.get_interval_estimates(
            pair,
            lambda x: np.array([metrics.aggregate_iqm(x)]),
            reps=RESAMPLES,
            random_state=np.random.RandomState(0),
        )
        better = metrics.probability_of_improvement(one, other)
        _, better_ends = library.get_interval_estimates(
            {"pair": (one, other)},
            lambda x, y: np.array([metrics.probability_of_improvement(x, y)]),
            reps=2_000,
            random_state=np.random.RandomState(0),
        )
        profiles, bands = library.create_performance_profile(pair, THRESHOLDS, reps=RESAMPLES)
        out["cases"].append(
            {
                "name": name,
                **{k: v.tolist() for k, v in pair.items()},
                "iqm": {k: float(v) for k, v in iqm.items()},
                "iqm_interval": {k: v[:, 0].tolist() for k, v in ends.items()},
                "improvement": float(better),
                "improvement_interval": better_ends["pair"][:, 0].tolist(),
                "profile": {k: v.tolist() for k, v in profiles.items()},
                "profile_band": {k: v.tolist() for k, v in bands.items()},
            }
        )
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
