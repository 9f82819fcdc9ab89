"""Reward and cost curves of one run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.cost_names import LimitUnit, cost_keys, cost_label, cost_word, training_column
from fsrl_ext.errors import checked
from fsrl_ext.report.cost_axis import cost_axis
from fsrl_ext.report.files import replacing
from fsrl_ext.report.progress import read_progress, read_result

# Curves with at most this many points have marks, without which a single point would not be seen.
_FEW_POINTS = 40
_WITHIN, _ABOVE = "selection", "selection, mean + standard error above the limit"


@checked()
def plot_run(
    folder: Path,
    *,
    title: str,
    cost_limit: tuple[float, ...],
    path: Path,
    costs: tuple[str, ...] | None = None,
    limit_unit: LimitUnit = "episode",
) -> None:
    """Draws return and cost over environment steps: training episodes, and the selections.

    Every value is within the axes. Selections are drawn with their standard error, since a mean cost below
    the limit is not feasible if mean and standard error together are above it. Marks of a cost are its own
    verdict, and marks of the return that of all costs.

    :param folder: a run folder with ``progress.csv`` and ``result.json``.
    :param cost_limit: a dashed line for each finite limit.
    :param path: the PNG to write, in one move.
    :param costs: names of the costs; ``None`` for costs without names.
    :param limit_unit: unit of the limits, and of the costs that are drawn.
    :raises RunFolderError: if the folder has no ``progress.csv`` or no ``result.json``.
    """
    # Without pyplot there is no global state and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    progress, selections = read_progress(folder), read_result(folder)["selections"]
    steps = progress.get("env_step", np.zeros(0))
    figure = Figure(figsize=(9, 2.6 + 2.2 * (1 + len(cost_limit))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(cost_limit), 1, sharex=True)
    tested = [x["env_step"] for x in selections]
    returns = [(x["return_mean"], x["return_stderr"]) for x in selections]
    _training(axes[0], steps, progress.get("train/returns_stat/mean"))
    _selections(axes[0], tested, returns, [x["feasible"] for x in selections])
    axes[0].set(ylabel="episode return", title=title)
    keys = cost_keys(costs, len(cost_limit))
    for i, (axis, limit) in enumerate(zip(axes[1:], cost_limit, strict=True)):
        train = progress.get(training_column(keys[i], limit_unit))
        tests = [(x["cost_mean"][i], x["cost_stderr"][i]) for x in selections]
        _training(axis, steps, train)
        _selections(axis, tested, tests, [mean + error <= limit for mean, error in tests])
        if np.isfinite(limit):
            label = "limit" if len(set(cost_limit)) > 1 else f"limit {limit:g}"
            axis.axhline(limit, color="black", linestyle="--", linewidth=1.2, label=label)
        shown = [end for mean, error in tests for end in (mean - error, mean + error)]
        shown += [] if train is None else train[np.isfinite(train)].tolist()
        cost_axis(axis, shown, limit)
        word = "episode cost" if limit_unit == "episode" else cost_word(limit_unit)
        axis.set_ylabel(cost_label(costs, len(cost_limit), i, word))
    axes[-1].set_xlabel("environment steps")
    # All axes share one legend, outside of them, where it hides nothing.
    entries = {
        label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=2,
            fontsize=8,
            title="selections: deterministic episodes, mean ± standard error",
            title_fontsize=8,
        )
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _training(axis: Any, steps: np.ndarray, values: np.ndarray | None) -> None:
    """Draws the means of the training episodes."""
    axis.grid(alpha=0.3)
    axis.margins(x=0.02)
    if values is None:
        return
    there = np.isfinite(values)
    marker = "." if there.sum() <= _FEW_POINTS else None
    axis.plot(
        steps[there],
        values[there],
        color="tab:blue",
        linewidth=1,
        marker=marker,
        label="training episodes (stochastic), means",
    )


def _selections(
    axis: Any, steps: Sequence[int], values: Sequence[tuple[float, float]], within: Sequence[bool]
) -> None:
    """Draws means and standard errors of the selections, marked by whether they are within the limit."""
    axis.plot(steps, [mean for mean, _ in values], color="tab:orange", linewidth=1, alpha=0.6)
    for verdict, marker, color, label in (
        (True, "o", "tab:orange", _WITHIN),
        (False, "X", "tab:red", _ABOVE),
    ):
        chosen = [
            (step, *value) for step, value, x in zip(steps, values, within, strict=True) if x is verdict
        ]
        if chosen:
            at, means, errors = zip(*chosen, strict=True)
            axis.errorbar(
                at, means, errors, fmt=marker, color=color, markersize=4, elinewidth=0.8, label=label
            )
