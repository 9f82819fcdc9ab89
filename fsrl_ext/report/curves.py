"""Reward and cost curves of one run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report.progress import read_progress


def plot_run(folder: Path, *, title: str, cost_limit: tuple[float, ...], path: Path) -> None:
    """Draws return and cost over environment steps, training episodes and deterministic tests.

    :param folder: a run folder with ``progress.csv``.
    :param cost_limit: a dashed line for each finite limit.
    :param path: the PNG to write.
    :raises RunFolderError: if the folder has no ``progress.csv``.
    """
    # Without pyplot there is no global state and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    progress = read_progress(folder)
    steps = progress.get("env_step", np.zeros(0))
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    top, *cost_axes = figure.subplots(1 + len(cost_limit), 1, sharex=True)
    feasible = progress.get("test/feasible")
    _draw(top, steps, progress.get("train/returns_stat/mean"), progress.get("test/return"), feasible)
    top.set_ylabel("episode return")
    top.set_title(title)
    for index, (axis, limit) in enumerate(zip(cost_axes, cost_limit, strict=True)):
        train = progress.get(f"train/costs_stat/{index}/mean")
        _draw(axis, steps, train, progress.get(f"test/cost/{index}"), feasible)
        if np.isfinite(limit):
            axis.axhline(limit, color="black", linestyle="--", linewidth=1.2, label=f"limit {limit:g}")
            # Untrained policies can be far above the limit; what matters happens around it.
            axis.set_ylim(0, max(4 * limit, 1.0))
        axis.set_ylabel("episode cost" if len(cost_limit) == 1 else f"episode cost {index}")
        axis.legend(loc="upper right", fontsize=8)
    top.legend(loc="lower right", fontsize=8)
    cost_axes[-1].set_xlabel("environment steps")
    figure.savefig(path, dpi=120)


def _draw(
    axis: Any,
    steps: np.ndarray,
    train: np.ndarray | None,
    test: np.ndarray | None,
    feasible: np.ndarray | None,
) -> None:
    if train is not None:
        there = ~np.isnan(train)
        axis.plot(steps[there], train[there], color="tab:blue", linewidth=1, label="training (stochastic)")
    if test is not None and feasible is not None:
        there = ~np.isnan(test)
        axis.plot(steps[there], test[there], color="tab:orange", linewidth=1, alpha=0.6)
        for value, marker, name in ((1.0, "o", "feasible"), (0.0, "x", "above the limit")):
            those = there & (feasible == value)
            axis.plot(
                steps[those],
                test[those],
                marker,
                color="tab:orange",
                markersize=4,
                label=f"deterministic, {name}",
            )
    axis.grid(alpha=0.3)
    axis.margins(x=0.01)
