"""Figures of final policies: box plots of their cost, return against cost, and the frontier over limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.cost_names import cost_word
from fsrl_ext.report.statistics import cost_interval, mean_interval
from fsrl_ext.report.study.panels import Panel, sweeps
from fsrl_ext.report.study.rows import within
from fsrl_ext.report.study.scores import Which
from fsrl_ext.report.study.select import Group, value_text
from fsrl_ext.report.study.style import add_legend, markers, new_figure, save

_MOST_COLUMNS = 3


def draw_costs(
    panels: Sequence[Panel], colours: dict[str, str], path: Path, *, which: Which = "best"
) -> None:
    """Draws the final costs of the seeds: each seed as a point, and a box where there are at least five.

    A box spans the quartiles with a line at the median, and its whiskers reach the furthest seeds within 1.5
    times that span.
    """

    def draw(axis: Any, panel: Panel, cost: int) -> None:
        names = [name for name, member in panel.groups.items() if cost < len(member.limits)]
        for place, name in enumerate(names):
            values = _costs(panel.groups[name], which, cost)
            if len(values) >= 5:
                axis.boxplot(
                    [values],
                    positions=[place],
                    widths=0.6,
                    showfliers=False,
                    boxprops={"color": colours[name]},
                    whiskerprops={"color": colours[name]},
                    capprops={"color": colours[name]},
                    medianprops={"color": colours[name], "linewidth": 1.6},
                )
            shift = 0.24 * (np.arange(len(values)) / max(len(values) - 1, 1) - 0.5)
            axis.plot(place + shift, values, "o", color=colours[name], markersize=3, alpha=0.8)
        for limit in panel.limits(cost):
            axis.axhline(limit, color="black", linestyle=":", linewidth=0.9, label="limit")
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        axis.set_ylabel(_axis_label(panel, which, cost))

    _draw(panels, path, draw)


def draw_scatter(
    panels: Sequence[Panel], colours: dict[str, str], path: Path, *, which: Which = "best"
) -> None:
    """Draws return against cost: small marks are seeds, large ones means with their 95% t intervals.

    Marks of infeasible seeds and of means above the limit are hollow.
    """
    shapes = markers(list(colours))

    def draw(axis: Any, panel: Panel, cost: int) -> None:
        for name, member in panel.groups.items():
            if cost >= len(member.limits):
                continue
            style: dict[str, Any] = {"color": colours[name], "marker": shapes[name], "linestyle": "none"}
            judged = [getattr(run, which) for run in member.runs]
            for one in judged:
                fill = {} if one.feasible else {"markerfacecolor": "none"}
                axis.plot(one.cost_mean[cost], one.return_mean, **style, **fill, markersize=3, alpha=0.55)
            _mean_mark(axis, member, which, cost, style, name)
        for limit in panel.limits(cost):
            axis.axvline(limit, color="black", linestyle=":", linewidth=0.9, label="limit")
        _cost_and_return(axis, panel, which, cost)

    _draw(panels, path, draw)


def draw_frontier(
    panels: Sequence[Panel], colours: dict[str, str], path: Path, *, which: Which = "best"
) -> None:
    """Draws the mean return against the mean cost along a sweep of limits, which are written at the marks.

    Marks of means above their limit are hollow.

    :raises ValueError: if no name has runs of two limits.
    """
    shapes = markers(list(colours))
    if not any(len(members) > 1 for panel in panels for members in sweeps(panel).values()):
        raise ValueError("a frontier needs runs of one policy and task with at least two cost limits")

    def draw(axis: Any, panel: Panel, cost: int) -> None:
        for name, members in sweeps(panel).items():
            there = [x for x in members if cost < len(x.limits)]
            points = [_means(x, which, cost) for x in there]
            style: dict[str, Any] = {"color": colours[name], "marker": shapes[name]}
            axis.plot(*zip(*points, strict=True), color=colours[name], linewidth=0.9)
            for i, (member, point) in enumerate(zip(there, points, strict=True)):
                _mean_mark(axis, member, which, cost, style, None if i else name)
                text = value_text(member.limits[cost])
                axis.annotate(
                    text, point, (3, 3), textcoords="offset points", fontsize=6, color=colours[name]
                )
        _cost_and_return(axis, panel, which, cost)

    _draw(panels, path, draw)


def _costs(group: Group, which: Which, cost: int) -> list[float]:
    return [getattr(run, which).cost_mean[cost] for run in group.runs]


def _means(group: Group, which: Which, cost: int) -> tuple[float, float]:
    """Mean cost and mean return over the seeds."""
    returns = [getattr(run, which).return_mean for run in group.runs]
    return float(np.mean(_costs(group, which, cost))), float(np.mean(returns))


def _mean_mark(
    axis: Any, group: Group, which: Which, cost: int, style: dict[str, Any], label: str | None
) -> None:
    """The mean over seeds with its intervals, hollow if a mean cost is above its limit."""
    costs, returns = _costs(group, which, cost), [getattr(run, which).return_mean for run in group.runs]
    x, y = _means(group, which, cost)
    errors = {}
    for name, middle, ends in (("xerr", x, cost_interval(costs)), ("yerr", y, mean_interval(returns))):
        if ends is not None:
            errors[name] = [[middle - ends[0]], [ends[1] - middle]]
    fill = {} if within(group, which) else {"markerfacecolor": "white"}
    mark = {**style, "linestyle": "none"}
    axis.errorbar([x], [y], **errors, **mark, **fill, markersize=6, elinewidth=0.8, label=label)


def _axis_label(panel: Panel, which: Which, cost: int) -> str:
    label = panel.cost_label(cost)
    word = cost_word(next(iter(panel.groups.values())).limit_unit)
    return f"{word} of the {which} policy" + ("" if label == word else f", {label}")


def _cost_and_return(axis: Any, panel: Panel, which: Which, cost: int) -> None:
    axis.set_xlabel(_axis_label(panel, which, cost))
    axis.set_ylabel("return")


def _draw(panels: Sequence[Panel], path: Path, draw: Callable[[Any, Panel, int], None]) -> None:
    """One panel for each facet and cost; several costs are below each other."""
    columns = min(len(panels), _MOST_COLUMNS)
    blocks = math.ceil(len(panels) / columns)
    height = max(panel.num_costs for panel in panels)
    with new_figure(blocks * height, columns, height=2.1) as (figure, axes):
        for number, panel in enumerate(panels):
            block, column = divmod(number, columns)
            for cost in range(panel.num_costs):
                draw(axes[block * height + cost, column], panel, cost)
            axes[block * height, column].set_title(panel.title)
        for axis in axes.flat:
            if not axis.has_data():
                axis.set_visible(False)
        add_legend(figure, axes.flat)
        save(figure, path)
