"""Returns and costs along the training, over steps, wall time or cumulative cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fsrl_ext.report.cost_axis import cost_axis
from fsrl_ext.report.study.grid import POINTS, WINDOW, Band, Points, Statistic, over_seeds
from fsrl_ext.report.study.panels import Panel
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.style import add_legend, lines, new_figure, save

Axis = Literal["steps", "time", "cost"]

Episodes = Literal["training", "deterministic", "both"]

_MOST_COLUMNS = 3


def draw_curves(
    panels: Sequence[Panel],
    colours: dict[str, str],
    path: Path,
    *,
    x: Axis = "steps",
    statistic: Statistic = "mean",
    episodes: Episodes = "training",
) -> None:
    """Draws a column of panels for each facet: the return, and below it each cost with its limit.

    Training episodes are solid with their interval over seeds, selections (deterministic episodes) dashed.
    Panels are as high as the curves need; intervals that are wider are cut.

    :param colours: by the names of the panels' groups.
    :param x: environment steps; wall time, as if every step took equally long; or the sum of the costs of all
        training episodes so far (of the first cost).
    """
    columns = min(len(panels), _MOST_COLUMNS)
    blocks = math.ceil(len(panels) / columns)
    height = 1 + max(panel.num_costs for panel in panels)
    with new_figure(blocks * height, columns, height=1.35) as (figure, axes):
        for number, panel in enumerate(panels):
            block, column = divmod(number, columns)
            _draw_panel(
                axes[block * height : (block + 1) * height, column], panel, colours, x, statistic, episodes
            )
        for axis in axes.flat:
            if not axis.has_data():
                axis.set_visible(False)
        for column in range(columns):
            axes[0, column].figure.align_ylabels(axes[:, column])
        add_legend(figure, axes.flat)
        save(figure, path)


def _draw_panel(
    axes: np.ndarray, panel: Panel, colours: dict[str, str], x: Axis, statistic: Statistic, episodes: Episodes
) -> None:
    from matplotlib.ticker import MaxNLocator

    unit = _time_unit(panel) if x == "time" else ("", 1.0)
    shown: list[list[float]] = [[] for _ in axes]
    styles = lines(colours)
    end = 0.0
    for name, member in panel.groups.items():
        style: dict[str, Any] = {"color": colours[name], "linestyle": styles[name]}
        for kind in ("training", "deterministic"):
            if episodes not in (kind, "both"):
                continue
            dashed = (
                {"linestyle": (0, (2.5, 1.5)), "linewidth": 0.9, "alpha": 0.9} if kind != "training" else {}
            )
            label = name if kind == "training" or episodes != "both" else None
            for i in range(1 + len(member.limits)):
                curves = [curve_points(run, kind, i - 1, x, unit[1]) for run in member.runs]
                band = curve_band(curves, statistic, smooth=kind == "training")
                few = {"marker": "o", "markersize": 2} if len(band.x) == 1 else {}
                axes[i].plot(band.x, band.y, **{**style, **dashed}, **few, label=label if i == 0 else None)
                if kind == "training" or episodes != "both":
                    low = np.maximum(band.low, 0.0) if i and np.nanmin(band.y, initial=0.0) >= 0 else band.low
                    axes[i].fill_between(band.x, low, band.high, color=colours[name], alpha=0.18, linewidth=0)
                shown[i] += band.y[np.isfinite(band.y)].tolist()
                end = max([end, *band.x.tolist()])
    if episodes == "both":
        for label, line in (("training (sampled)", "-"), ("selections (deterministic)", (0, (2.5, 1.5)))):
            axes[0].plot([], [], color="grey", linestyle=line, label=label)
    for i in range(panel.num_costs):
        for limit in panel.limits(i):
            axes[1 + i].axhline(limit, color="black", linestyle=":", linewidth=0.9, label="limit")
        cost_axis(axes[1 + i], shown[1 + i], (panel.limits(i) or [np.inf])[-1], note=False)
        axes[1 + i].set_ylabel(panel.cost_label(i))
    _return_axis(axes[0], shown[0])
    axes[0].set_title(panel.title)
    axes[0].set_ylabel("return")
    used = axes[: 1 + panel.num_costs]
    for axis in used:
        axis.set_xlim(0.0, end or 1.0)
    for axis in used[:-1]:
        axis.tick_params(labelbottom=False)
    used[-1].set_xlabel(
        {"steps": "environment steps", "time": unit[0], "cost": "cumulative training cost"}[x]
    )
    used[-1].xaxis.set_major_locator(MaxNLocator(5))
    if x != "time":
        used[-1].xaxis.set_major_formatter(_short_number)


def _return_axis(axis: Any, values: Sequence[float]) -> None:
    if values:
        low, high = min(values), max(values)
        margin = 0.12 * ((high - low) or abs(high) or 1.0)
        axis.set_ylim(low - margin, high + margin)


def curve_points(run: StudyRun, kind: str, cost: int, x: Axis = "steps", unit: float = 1.0) -> Points:
    """The points of a run's curve: the return for ``cost`` -1, else that cost.

    :param kind: ``training`` episodes, or the ``deterministic`` ones of the selections.
    :param unit: what the places on the axis are divided by.
    """
    if kind == "training":
        steps, weights = run.training.steps, run.training.episodes
        values = run.training.returns if cost < 0 else run.training.costs[:, cost]
    else:
        steps, weights = run.selections.steps, np.ones(len(run.selections.steps))
        values = run.selections.returns if cost < 0 else run.selections.costs[:, cost]
    return Points(_places(run, steps, x) / unit, values, weights)


def _places(run: StudyRun, steps: np.ndarray, x: Axis) -> np.ndarray:
    """Where environment steps are on the x axis; they keep their order."""
    if x == "steps":
        return np.asarray(steps, dtype=float)
    if x == "time":
        return run.seconds * np.asarray(steps, dtype=float) / max(run.env_step, 1)
    training = run.training
    spent = np.cumsum(np.nan_to_num(training.costs[:, 0]) * training.episodes)
    return np.interp(steps, [0.0, *training.steps], [0.0, *spent])


def curve_band(curves: list[Points], statistic: Statistic, *, smooth: bool) -> Band:
    """The curve over seeds, on a grid up to the last point of any seed.

    :param curves: one for each seed.
    :param smooth: whether points are averaged in a window, as those of training episodes are.
    """
    ends = [points.finite().x[-1:] for points in curves]
    last = max((float(x[0]) for x in ends if len(x)), default=0.0)
    grid = np.linspace(0.0, last, POINTS + 1)
    if not smooth:
        # Where all seeds have their selections at the same places, these are the grid.
        places = [points.finite().x for points in curves]
        if len(places[0]) and all(np.array_equal(places[0], other) for other in places):
            grid = places[0]
    return over_seeds(curves, grid, statistic, window=WINDOW * last if smooth else 0.0)


def _time_unit(panel: Panel) -> tuple[str, float]:
    """Seconds, minutes or hours, and how many seconds one has."""
    longest = max(run.seconds for member in panel.groups.values() for run in member.runs)
    if longest < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 10_800 else ("hours", 3600.0)


def _short_number(value: float, _: Any) -> str:
    """A tick such as ``250k`` or ``1.5M``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
