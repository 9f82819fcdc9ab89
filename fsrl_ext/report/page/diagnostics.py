"""Diagnostics of the learning: what ``progress.csv`` logs of multipliers, steps, critics and KL divergences.

Each figure has lines of several columns. A line is the mean over seeds, and its band spans everything that
was logged near a place by any seed, so that no peak is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fsrl_ext.cost_names import cost_keys, cost_label
from fsrl_ext.report.page.thin import numbers, steps
from fsrl_ext.report.study.grid import Points, over_seeds
from fsrl_ext.report.study.select import Group, value_text

PLACES = 100
"""Places of a line; a line of fewer rows has fewer."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of a figure.

    :param column: of ``progress.csv``, without ``update/``.
    :param unit: what the values are divided by, from the settings; ``None`` if the settings lack it.
    """

    label: str
    column: str
    unit: Callable[[Settings], float | None] = lambda _: 1.0


@dataclass(frozen=True)
class Diagnostic:
    """A figure: its lines, and what they should be compared with.

    :param text: what the figure shows and how it is read.
    :param shares: whether the lines are shares of a whole, which are stacked.
    :param bound: label and value of a horizontal line, from the settings; ``None`` without one.
    :param is_cap: whether the bound is a cap, of which the text says how often it was reached.
    """

    title: str
    text: str
    lines: Sequence[Line]
    shares: bool = False
    bound: Callable[[Settings], tuple[str, float] | None] = field(default=lambda _: None)
    is_cap: bool = False


def _setting(*names: str, index: int | None = None) -> Callable[[Settings], float | None]:
    """The first of the settings that is there, as a positive finite number; else ``None``."""

    def value(settings: Settings) -> float | None:
        for name in names:
            x = settings.get(name)
            if isinstance(x, list | tuple):
                x = x[min(index or 0, len(x) - 1)] if x else None
            if isinstance(x, int | float) and not isinstance(x, bool) and 0 < x < math.inf:
                return float(x)
        return None

    return value


def _bound(label: str, value: Callable[[Settings], float | None]) -> Any:
    def bound(settings: Settings) -> tuple[str, float] | None:
        x = value(settings)
        return None if x is None else (label, x)

    return bound


def _limit(cost: int) -> Callable[[Settings], tuple[str, float] | None]:
    return _bound("limit", _setting("cost_limit", index=cost))


_ESTEP = (
    ("slack", "no cost limit matters"),
    ("active", "a cost limit binds"),
    ("infeasible", "no policy within the KL bound keeps the limits"),
    ("saturated", "the best actions lie within the KL bound"),
    ("flat", "all actions are worth the same"),
)

_CASES = (
    ("inactive", "no cost limit matters"),
    ("active", "a cost limit changes the step"),
    ("recovery", "no step within the KL bound keeps the limits, so the step lowers the cost"),
    ("degenerate", "a gradient vanishes, or gradients of reward and costs are parallel"),
)


def _statuses(title: str, prefix: str, names: Sequence[tuple[str, str]]) -> Diagnostic:
    text = "Share of the updates by how the constrained problem was solved. " + "; ".join(
        f"{name}: {meaning}" for name, meaning in names
    )
    return Diagnostic(title, f"{text}.", [Line(name, f"{prefix}{name}") for name, _ in names], shares=True)


def diagnostics(num_costs: int, names: Sequence[str] | None = None) -> list[Diagnostic]:
    """All figures for policies with so many costs; a policy has those whose columns it logs.

    :param names: of the costs; ``None`` for costs without names.
    """
    figures = []
    suffixes = [""] if num_costs == 1 else [f"_{key}" for key in cost_keys(names, num_costs)]
    labels = [cost_label(names, num_costs, i) for i in range(num_costs)]
    cap = _setting("multiplier_max")
    figures.append(
        Diagnostic(
            "Cost multiplier" if num_costs == 1 else "Cost multipliers",
            "Price of the cost in the objective: it rises while the cost is above its limit.",
            [Line(label, f"constraint/multiplier{x}") for label, x in zip(labels, suffixes, strict=True)],
            bound=_bound("cap", cap),
            is_cap=True,
        )
    )
    for cost, suffix in enumerate(suffixes):
        figures.append(
            Diagnostic(
                "Cost: critic and reality" + ("" if labels[cost] == "cost" else f", {labels[cost]}"),
                "Cost of an episode in the training episodes, and what the critic and the estimates say "
                "about it. Where the level of the critic is far from the realised cost, the critic is wrong "
                "about the level.",
                [
                    Line("realised in training episodes", f"constraint/episode_cost{suffix}"),
                    Line("level of the critic", f"constraint/critic_level{suffix}"),
                    Line("expected of the updated policy", f"constraint/expected_cost{suffix}"),
                    Line("estimate that the constraint uses", f"constraint/measured_cost{suffix}"),
                ],
                bound=_limit(cost),
            )
        )
    figures += [
        _statuses("E-step status", "estep/", _ESTEP),
        _statuses("Case of the step", "step/case_", _CASES),
        _statuses("Case of the meta-step", "meta/case_", _CASES),
        Diagnostic(
            "KL divergence over its bound",
            "How far an update moves the policy, relative to what is allowed: 1 uses the bound up.",
            [
                Line("E-step", "estep/kl_relative"),
                Line("M-step, mean", "mstep/kl_mean_relative"),
                Line("M-step, scale", "mstep/kl_scale_relative"),
                Line("M-step", "mstep/kl_relative"),
                Line("step", "step/kl_relative"),
                Line("passes", "actor/kl", _setting("kl_bound", "kl_stop")),
                Line("meta-step", "meta/kl", _setting("outer_kl_bound")),
            ],
            bound=lambda _: ("bound", 1.0),
        ),
        Diagnostic(
            "KL multipliers of the M-step",
            "Weights of the KL divergences in the actor's loss.",
            [
                Line("mean", "mstep/multiplier_mean"),
                Line("scale", "mstep/multiplier_scale"),
                Line("M-step", "mstep/multiplier"),
            ],
            bound=_bound("cap", _setting("kl_multiplier_max")),
            is_cap=True,
        ),
    ]
    return figures


def diagnostic_columns(num_costs: int, names: Sequence[str] | None = None) -> list[str]:
    """The columns that figures for policies with so many costs need; arguments as for :func:`diagnostics`."""
    figures = diagnostics(num_costs, names)
    return list(dict.fromkeys(line.column for figure in figures for line in figure.lines))


def diagnostic_data(member: Group, logged: Sequence[Mapping[str, Points]]) -> list[dict[str, Any]]:
    """The figures that a group's runs have something logged for, as data of the page's script.

    :param logged: by column what each run logged of :func:`diagnostic_columns`.
    """
    settings = member.runs[0].settings
    figures = diagnostics(len(member.limits), member.cost_names)
    drawn = (_figure(figure, logged, settings) for figure in figures)
    return [data for data in drawn if data is not None]


def _figure(
    figure: Diagnostic, logged: Sequence[Mapping[str, Points]], settings: Settings
) -> dict[str, Any] | None:
    lines, highest = [], []
    bound = figure.bound(settings)
    for line in figure.lines:
        unit = line.unit(settings)
        seeds = [of_run[line.column] for of_run in logged if line.column in of_run]
        if unit is None or not seeds:
            continue
        seeds = [Points(x.x, x.y / unit, x.weights) for x in seeds]
        highest += [x.y for x in seeds]
        lines.append({"label": line.label, **_line(seeds)})
    if not lines:
        return None
    text = figure.text
    if bound is not None and figure.is_cap:
        text += f" {_reached(np.concatenate(highest), bound[1])}"
    data: dict[str, Any] = {"title": figure.title, "text": text, "shares": figure.shares, "lines": lines}
    if bound is not None:
        data["bound"] = {"label": f"{bound[0]} {value_text(bound[1])}", "value": bound[1]}
    return data


def _reached(values: np.ndarray, cap: float) -> str:
    """How often a cap was reached; a row is a mean over updates, so rows near the cap count."""
    share = float((values >= 0.99 * cap).mean())
    if not share:
        return (
            f"The cap of {value_text(cap)} was not reached; the highest logged value is {values.max():.3g}."
        )
    return (
        f"The cap of {value_text(cap)} was reached in {max(share, 0.001):.1%} of the logged rows; a "
        "multiplier that stays at its cap cannot hold the limit."
    )


def _line(seeds: Sequence[Points]) -> dict[str, Any]:
    """The mean over seeds and the range of all logged values, at the places of a grid."""
    first, last = seeds[0].x, max(float(x.x[-1]) for x in seeds)
    rows = min(len(x.x) for x in seeds)
    if rows <= PLACES and all(np.array_equal(first, x.x) for x in seeds):
        grid, window = first, 0.0
    else:
        grid = np.linspace(0.0, last, min(PLACES, max(rows, 2)) + 1)
        window = float(grid[1] - grid[0])
    band = over_seeds(list(seeds), grid, "mean", window=window)
    low, high = band.y.copy(), band.y.copy()
    if window and len(band.x):
        # The nearest place of the grid stands for a row.
        for points in seeds:
            there = (points.x >= band.x[0] - window / 2) & (points.x <= band.x[-1] + window / 2)
            place = np.clip(np.rint((points.x[there] - band.x[0]) / window).astype(int), 0, len(band.x) - 1)
            np.minimum.at(low, place, points.y[there])
            np.maximum.at(high, place, points.y[there])
    elif len(band.x):
        values = np.stack([x.y for x in seeds])
        low, high = values.min(0), values.max(0)
    return {"x": steps(band.x), "y": numbers(band.y), "low": numbers(low), "high": numbers(high)}
