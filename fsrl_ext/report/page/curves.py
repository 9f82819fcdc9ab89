"""Data of the interactive curves and of return against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fsrl_ext.report.page.thin import numbers, steps, thinned
from fsrl_ext.report.statistics import cost_interval, mean_interval
from fsrl_ext.report.study.curve_figure import curve_band, curve_points
from fsrl_ext.report.study.panels import Panel
from fsrl_ext.report.study.rows import WHICH, within
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import Group
from fsrl_ext.report.study.style import MARKERS, lines, markers

KINDS = ("training", "deterministic")

_SYMBOLS = dict(
    zip(
        MARKERS,
        ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"),
        strict=True,
    )
)


def styles(colours: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Colour, dashes and marker of each name, as Plotly calls them; they are those of ``fsrl-ext plot``."""
    shapes, dashes = markers(list(colours)), lines(colours)
    return {
        name: {"colour": colour, "dash": _dash(dashes[name]), "symbol": _SYMBOLS[shapes[name]]}
        for name, colour in colours.items()
    }


def _dash(style: Any) -> str:
    return "solid" if style == "-" else ",".join(f"{2 * length:g}px" for length in style[1])


def panel_data(panels: Sequence[Panel], most: int) -> list[dict[str, Any]]:
    """What the page's script draws, for each panel.

    :param most: points of one seed's curve, at most.
    """
    return [
        {
            "title": panel.title,
            "costs": [panel.cost_label(cost) for cost in range(panel.num_costs)],
            "limits": [numbers(panel.limits(cost)) for cost in range(panel.num_costs)],
            "groups": [_group(name, member, most) for name, member in panel.groups.items()],
        }
        for panel in panels
    ]


def _group(name: str, member: Group, most: int) -> dict[str, Any]:
    signals = range(-1, len(member.limits))
    return {
        "name": name,
        "curves": {kind: [_band(member, kind, signal) for signal in signals] for kind in KINDS},
        "seeds": [
            {
                "seed": run.seed,
                **{kind: [_seed(run, kind, signal, most) for signal in signals] for kind in KINDS},
            }
            for run in member.runs
        ],
        "final": {which: _final(member, which) for which in WHICH},
    }


def _band(member: Group, kind: str, signal: int) -> dict[str, Any]:
    """The mean over seeds with its interval, as ``fsrl-ext plot`` draws it."""
    points = [curve_points(run, kind, signal) for run in member.runs]
    band = curve_band(points, "mean", smooth=kind == "training")
    low = band.low
    if signal >= 0 and np.nanmin(band.y, initial=0.0) >= 0:
        low = np.maximum(low, 0.0)
    data: dict[str, Any] = {"x": steps(band.x), "y": numbers(band.y)}
    if len(member.runs) > 1:
        data |= {"low": numbers(low), "high": numbers(band.high)}
    return data


def _seed(run: StudyRun, kind: str, signal: int, most: int) -> dict[str, Any]:
    points = curve_points(run, kind, signal).finite()
    x, y = thinned(points.x, points.y, most)
    return {"x": steps(x), "y": numbers(y)}


def _final(member: Group, which: str) -> dict[str, Any]:
    """Return and costs of the final evaluation: each seed, and the mean with its interval."""
    judged = [getattr(run, which) for run in member.runs]
    returns = [x.return_mean for x in judged]
    costs = [list(values) for values in zip(*(x.cost_mean for x in judged), strict=True)]
    return {
        "within": within(member, which),
        "feasible": [x.feasible for x in judged],
        "returns": numbers(returns),
        "costs": [numbers(values) for values in costs],
        "return": _mean(returns, mean_interval(returns)),
        "cost": [_mean(values, cost_interval(values)) for values in costs],
    }


def _mean(values: Sequence[float], ends: Sequence[float] | None) -> list[float | int | None]:
    return numbers([float(np.mean(values)), *(ends or ())])
