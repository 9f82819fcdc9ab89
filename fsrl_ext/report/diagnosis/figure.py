"""A diagnosis as a picture: a row of panels for reward and each cost, and one for the constraint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report.diagnosis.findings import kind_label
from fsrl_ext.report.study.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, save

Report = Mapping[str, Any]

_STATUSES = {
    "E-step slack": SKY,
    "E-step active": GREEN,
    "E-step infeasible": VERMILION,
    "E-step saturated": ORANGE,
    "E-step flat": PURPLE,
    "step inactive": SKY,
    "step active": GREEN,
    "step recovery": VERMILION,
    "step degenerate": PURPLE,
}


def draw_diagnosis(report: Report, path: Path) -> None:
    """Draw a report of ``diagnose``.

    :param path: the PNG to write, in one move.
    """
    names = list(report["episodes"]["stochastic"]["per_step"])
    with new_figure(len(names) + 1, 4, height=1.9) as (figure, axes):
        figure.suptitle(f"{report['policy']} on {report['task']}, {report['env_step']:,} steps")
        for row, name in zip(axes, names, strict=False):
            signal = report["signals"].get(name)
            _calibration(row[0], signal, name)
            _phases(row[1], signal, name)
            _order(row[2], signal, name)
            _per_step(row[3], report, name)
        _episodes(axes[-1][0], report)
        _multipliers(axes[-1][1], report)
        _statuses(axes[-1][2], report)
        _actions(axes[-1][3], report)
        save(figure, path)


def _nothing(axis: Any, text: str) -> None:
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, wrap=True)


def _calibration(axis: Any, signal: Report | None, name: str) -> None:
    points = None if signal is None else signal["level"].get("calibration")
    if not points:
        _nothing(axis, "no critic")
        return
    critic, realised = np.array(points).T
    low, high = min(critic.min(), realised.min()), max(critic.max(), realised.max())
    axis.plot([low, high], [low, high], color=BLACK, linewidth=0.7, linestyle="--", label="right")
    axis.plot(critic, realised, color=BLUE, marker="o", markersize=3, label="tenths of the states")
    axis.set(title=f"{name}: critic and realised", xlabel="critic", ylabel="realised sum")
    axis.legend(frameon=False)


def _phases(axis: Any, signal: Report | None, name: str) -> None:
    if signal is None:
        _nothing(axis, "no critic")
        return
    phases = np.arange(1, len(signal["phases"]["critic"]) + 1)
    for key, label, colour, style in (
        ("critic_of_all", "critic, all states", SKY, ":"),
        ("critic", "critic", BLUE, "-"),
        ("realised", "realised", VERMILION, "-"),
    ):
        axis.plot(
            phases,
            signal["phases"][key],
            color=colour,
            linestyle=style,
            marker="o",
            markersize=3,
            label=label,
        )
    axis.set(title=f"{name}: by phase", xlabel="fifth of the episode", ylabel="discounted sum")
    axis.legend(frameon=False)


def _order(axis: Any, signal: Report | None, name: str) -> None:
    order = None if signal is None else signal["order"]
    if not order:
        _nothing(axis, "no replays of actions")
        return
    critic, realised = np.array(order["differences"]).T
    axis.scatter(critic, realised, s=4, color=BLUE, alpha=0.6, linewidths=0, label="action of a state")
    ends = np.array([critic.min(), critic.max()])
    axis.plot(ends, ends, color=BLACK, linewidth=0.7, linestyle="--", label="right")
    if math.isfinite(order["slope"]["value"]):
        slope = order["slope"]["value"]
        axis.plot(ends, slope * ends, color=VERMILION, label=f"slope {slope:.2f}")
    axis.set(
        title=f"{name}: actions of a state", xlabel="critic less its mean", ylabel="realised less its mean"
    )
    axis.legend(frameon=False)


def _per_step(axis: Any, report: Report, name: str) -> None:
    for kind, colour in (("stochastic", BLUE), ("deterministic", VERMILION)):
        values = report["episodes"][kind]["per_step"][name]
        label = kind_label(report, kind)
        axis.plot(np.arange(1, len(values) + 1), values, color=colour, marker="o", markersize=3, label=label)
    axis.set(title=f"{name} per step", xlabel="fifth of the episode", ylabel="per step")
    axis.legend(frameon=False)


def _episodes(axis: Any, report: Report) -> None:
    """Draws the cost of each episode, sampled over deterministic, with the limits."""
    for i, limit in enumerate(report["cost_limit"]):
        costs = [np.array(report["episodes"][x]["costs"])[:, i] for x in ("deterministic", "stochastic")]
        colour = (VERMILION, BLUE, GREEN, ORANGE)[i % 4]
        label = report["cost_names"][i]
        axis.scatter(*costs, s=6, color=colour, alpha=0.7, linewidths=0, label=label)
        if math.isfinite(limit):
            axis.axhline(limit, color=colour, linewidth=0.7, linestyle="--")
            axis.axvline(limit, color=colour, linewidth=0.7, linestyle="--")
    kind = "discounted cost" if report.get("limit_unit") == "discounted" else "cost"
    axis.set(title=f"{kind} of an episode (dashed: limit)", xlabel=kind_label(report), ylabel="stochastic")
    axis.legend(frameon=False)


def _multipliers(axis: Any, report: Report) -> None:
    rows = {} if report["training"] is None else report["training"]["rows"]
    names = ("multiplier", "extra margin", "extra share")
    shown = {label: x for label, x in rows.items() if label.startswith(names)}
    if not shown:
        _nothing(axis, "no multiplier in the log")
        return
    for (label, x), colour in zip(
        shown.items(), (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY) * 4, strict=False
    ):
        axis.plot(range(1, 5), x["quarters"], color=colour, marker="o", markersize=3, label=label)
    axis.set(title="multiplier and margin", xlabel="quarter of the training", xticks=range(1, 5))
    axis.legend(frameon=False)


def _statuses(axis: Any, report: Report) -> None:
    rows = {} if report["training"] is None else report["training"]["rows"]
    shown = {label: rows[label]["quarters"] for label in _STATUSES if label in rows}
    if not shown:
        _nothing(axis, "no statuses in the log")
        return
    bottom = np.zeros(4)
    for label, values in shown.items():
        heights = np.nan_to_num(values)
        if heights.any():
            axis.bar(range(1, 5), heights, bottom=bottom, color=_STATUSES[label], label=label.split()[-1])
        bottom = bottom + heights
    axis.set(
        title="status of the E-steps or steps",
        xlabel="quarter of the training",
        xticks=range(1, 5),
        ylim=(0, 1.5),
    )
    axis.legend(frameon=False, ncols=2, loc="upper center")


def _actions(axis: Any, report: Report) -> None:
    if shares := report["actions"].get("shares"):
        axis.bar(range(len(shares)), shares, 0.8, color=BLUE)
        axis.set(title="share of each action", xlabel="action", xticks=range(len(shares)), ylim=(0, 1))
        return
    places = np.arange(len(report["actions"]["std"]))
    axis.bar(places - 0.2, report["actions"]["std"], 0.4, color=BLUE, label="standard deviation")
    axis.bar(places + 0.2, report["actions"]["at_edge"], 0.4, color=ORANGE, label="share at the edge")
    highest = max(*report["actions"]["std"], *report["actions"]["at_edge"], 0.1)
    axis.set(title="sampled actions", xlabel="dimension", xticks=places, ylim=(0, 1.4 * highest))
    axis.legend(frameon=False)
