"""Training curves of the result files, as means over windows of environment steps.

    python benchmarks/curves.py SafetyCarCircle-v0/cvpo/1M --at 100000 500000 1000000
    python benchmarks/curves.py SafetyPointStcircle/meta_cpo --at 3600000 --window 1800000

Reads ``benchmarks/results/<folder>/seed<k>.json``, which ``learning.py`` and ``meta_learning.py`` write. A
number is the mean over the points of a curve in ``(step - window, step]``; a curve has at most 200 points, so
a window should span several of them. Printed for each seed and as the mean over seeds: return and cost of the
training episodes (of meta-learners, after the adaptation; ``start`` rows are before it), the selections that
were feasible, and when the first of them came. Means over seeds have a 95% interval (Student t).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report import text_table
from fsrl_ext.report.files import read_json
from fsrl_ext.report.statistics import caution, cost_interval, mean_interval, mean_text

RESULTS = Path(__file__).parent / "results"
CURVES = {"train": ("train_return", "train_cost"), "start": ("start_return", "start_cost")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", help="folders below benchmarks/results that hold seed<k>.json")
    parser.add_argument("--at", type=int, nargs="+", required=True, help="environment steps at window ends")
    parser.add_argument("--window", type=int, default=20_000, help="environment steps that a mean is over")
    options = parser.parse_args()
    header = ["folder", "seed", *(f"return, cost at {x:,}" for x in options.at), "feasible", "first feasible"]
    rows = [row for folder in options.folders for row in folder_rows(folder, options.at, options.window)]
    print(text_table(header, rows))
    seeds = (len(list((RESULTS / folder).glob("seed*.json"))) for folder in options.folders)
    print(
        "means over seeds, which are independent [95% Student t, cut at 0 for costs]"
        + caution(seeds, "seeds")
    )


def folder_rows(folder: str, at: list[int], window: int) -> list[list[str]]:
    """One row per seed and curve, then the means over the seeds."""
    paths = sorted((RESULTS / folder).glob("seed*.json"))
    if not paths:
        raise SystemExit(f"folders must hold seed<k>.json below {RESULTS}, got {folder!r}")
    rows = []
    for kind, names in CURVES.items():
        means = []
        for path in paths:
            data = read_json(path)
            if names[0] not in data["curve"]:
                continue
            means.append([[windowed_mean(data["curve"], x, step, window) for x in names] for step in at])
            label = folder if kind == "train" else f"{folder} ({kind})"
            rows.append([label, path.stem.removeprefix("seed"), *map(pair, means[-1]), *selections(data)])
        if len(means) > 1:
            rows.append([rows[-1][0], "mean", *map(over_seeds, np.array(means).swapaxes(0, 1)), "", ""])
    return rows


def windowed_mean(curve: dict[str, list[Any]], name: str, step: int, window: int) -> float:
    """Mean of a curve over ``(step - window, step]``; of several costs the highest one."""
    steps = np.array(curve["env_step"])
    values = np.array([np.nan if x is None else np.max(x) for x in curve[name]], dtype=float)
    return float(np.nanmean(values[(steps > step - window) & (steps <= step)]))


def selections(data: dict[str, Any]) -> list[str]:
    """How many selections were feasible, and the environment step of the first one that was."""
    feasible = np.array(data["selections"]["feasible"], dtype=bool)
    first = np.flatnonzero(feasible)[:1]
    at = [f"{data['selections']['env_step'][i]:,.0f}" for i in first]
    return [f"{feasible.sum()} of {len(feasible)}", *(at or ["-"])]


def over_seeds(values: np.ndarray) -> str:
    """Means and intervals of return and cost ``[seeds, 2]``."""
    returns, costs = values.T.tolist()
    parts = ((returns, mean_interval(returns)), (costs, cost_interval(costs)))
    return ", ".join(mean_text(float(np.mean(part)), interval) for part, interval in parts)


def pair(values: list[float]) -> str:
    return ", ".join(f"{x:.1f}" for x in values)


if __name__ == "__main__":
    main()
