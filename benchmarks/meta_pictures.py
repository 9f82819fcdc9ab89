"""Draws the pictures of ``meta_learning.py``: curves of the adaptation and of the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fsrl_ext.report.statistics import cost_interval, mean_interval

Found = dict[str, list[dict[str, Any]]]  # result files by learner, one per seed
Interval = Callable[[Sequence[float]], tuple[float, float] | None]
SMOOTHED = 5  # meta-iterations of training episodes and cosines, which are few and noisy


def plot_adaptation(path: Path, found: Found, family: str) -> None:
    """Draws curves over the steps of the adaptation, means over the tasks, with 95% intervals over runs.

    The tasks are the same for every run, and the results of one run on them depend on each other.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for policy, files in found.items():
        for axis, name in zip(axes, ("return_mean", "cost_mean"), strict=True):
            values = [
                np.mean(
                    [[np.max(point[name]) for point in curve["tested"]] for curve in file["curves"]], axis=0
                )
                for file in files
            ]
            _band(axis, range(len(values[0])), values, _label(policy, files), _interval(name))
            axis.set_xlabel("steps of the adaptation")
    _limits(axes[1], [file["suite"]["cost_limit"] for files in found.values() for file in files])
    axes[0].set(title=f"{family}, tasks outside of the training range", ylabel="return")
    axes[1].set_ylabel("cost")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=150)


def plot_training(path: Path, found: Found, family: str) -> None:
    """Draws curves over the training, with 95% intervals over seeds.

    The upper row shows the meta-policy in the task of level 0, with deterministic actions. The lower row
    shows the adapted policies in the tasks of the training, with sampled actions, and the cosine between the
    meta-gradients, both as running means.
    """
    figure = Figure(figsize=(14, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    for learner, files in found.items():
        label = _label(learner, files)
        for axis, part, name in (
            (axes[0, 0], "selections", "return_mean"),
            (axes[0, 1], "selections", "cost_mean"),
            (axes[1, 0], "curve", "train_return"),
            (axes[1, 1], "curve", "train_cost"),
            (axes[1, 2], "curve", "cosine"),
        ):
            curves = [_curve(file[part], name) for file in files if name in file[part]]
            if curves:
                steps = curves[0][0]  # a run without episodes in a meta-iteration has a point less
                rows = [np.interp(steps, *curve) for curve in curves]
                _band(axis, steps, rows, label, _interval(name))
            else:
                axis.plot([], [])  # keeps a learner's colour the same everywhere
    for axis in axes[:, 1]:
        _limits(axis, [file["config"]["cost_limit"] for files in found.values() for file in files])
    axes[0, 0].set(title=f"{family}: meta-policy, level 0", ylabel="return")
    axes[0, 1].set(title="meta-policy, level 0", ylabel="cost")
    axes[1, 0].set(title="training episodes after the adaptation", ylabel="return")
    axes[1, 1].set(title="training episodes after the adaptation", ylabel="cost")
    axes[1, 2].set(title="cosine of first-order and exact meta-gradient")
    axes[0, 2].axis("off")
    axes[0, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    for axis in axes.flat:
        axis.set_xlabel("environment steps (millions)")
    figure.savefig(path, dpi=120)


def _interval(name: str) -> Interval:
    """Student's t interval, cut where a cost or a cosine ends."""
    if name == "cosine":
        return lambda values: mean_interval(np.clip(values, -1.0, 1.0).tolist(), lowest=-1.0, highest=1.0)
    return cost_interval if "cost" in name else mean_interval


def _label(learner: str, files: Sequence[Any]) -> str:
    return f"{learner} ({len(files)} seed{'s' if len(files) > 1 else ''})"


def _curve(part: dict[str, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns millions of steps, and values: running means of what every meta-iteration logs."""
    steps, values = np.array(part["env_step"]) / 1e6, np.array(part[name], dtype=float)
    if "return_mean" not in part:  # no tests
        values = np.convolve(values, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")
    return steps[-len(values) :], values


def _band(
    axis: Axes, x: Sequence[float] | np.ndarray, rows: Sequence[Any], label: str, make: Interval
) -> None:
    """Draws the mean over the rows and, of several rows, its interval."""
    values = np.array(rows)
    (line,) = axis.plot(x, values.mean(0), label=label, linewidth=1.3)
    if len(values) > 1:
        low, high = np.array([make(column.tolist()) for column in values.T]).T
        axis.fill_between(x, low, high, alpha=0.2, color=line.get_color())


def _limits(axis: Axes, limits: Sequence[Sequence[float]]) -> None:
    for limit in {x for row in limits for x in row if np.isfinite(x)}:
        axis.axhline(limit, color="black", linestyle="--", linewidth=1, label="limit")
