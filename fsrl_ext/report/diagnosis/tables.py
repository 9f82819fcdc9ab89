"""A diagnosis as text: tables of its numbers, notes on what is left out, and the findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fsrl_ext.cost_names import LimitUnit, in_unit
from fsrl_ext.report.diagnosis.findings import kind_label
from fsrl_ext.report.diagnosis.training import QUARTERS
from fsrl_ext.report.statistics import mean_text
from fsrl_ext.report.table import text_table

Report = Mapping[str, Any]


def diagnosis_text(report: Report) -> str:
    """Return the whole report as text."""
    parts = [
        _episodes(report),
        _constraint(report),
        _levels(report),
        _phases(report),
        _actions(report),
        _training(report),
        _buffer(report),
        "\n".join(report["notes"]),
        "Findings\n" + "\n".join(f"- {x['text']}" for x in report["findings"]),
    ]
    return "\n\n".join(x for x in parts if x)


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def _estimate(estimate: Mapping[str, float] | None) -> str:
    if estimate is None or math.isnan(estimate["value"]):
        return "-"
    if math.isnan(estimate["low"]):
        return f"{estimate['value']:.2f}"
    return mean_text(estimate["value"], (estimate["low"], estimate["high"]), 2)


def _unit(report: Report) -> LimitUnit:
    """The unit of the limits and of the costs of episodes; that of earlier reports is ``episode``."""
    return "discounted" if report.get("limit_unit") == "discounted" else "episode"


def _episodes(report: Report) -> str:
    numbers, names = report["episodes"], report["cost_names"]
    rows = []
    for kind in ("stochastic", "deterministic"):
        one = numbers[kind]
        costs = zip(one["cost_mean"], one["cost_interval"], strict=True)
        rows.append(
            [
                kind_label(report, kind),
                mean_text(one["return_mean"], one["return_interval"], 2),
                *(mean_text(mean, interval, 2) for mean, interval in costs),
                f"{one['share_above_limit']:.0%}",
                f"{one['length_mean']:.0f}",
            ]
        )
    pairs = zip(numbers["difference"]["mean"], numbers["difference"]["interval"], strict=True)
    rows.append(["difference", *(mean_text(mean, interval, 2) for mean, interval in pairs), "", ""])
    costs_by_name = (f"{in_unit(x, _unit(report))} [95%]" for x in names)
    header = ["Episodes", "return [95%]", *costs_by_name, "above limit", "length"]
    return text_table(header, rows)


def _constraint(report: Report) -> str:
    if not report["constraint"]:
        return ""
    rows = [
        [
            in_unit(name, _unit(report)),
            _number(x["limit"]),
            f"{x['margin']:.0%}",
            _number(x["extra_margin"]),
            _number(x["bound"]),
            f"{_number(x['threshold'])} ({x['threshold_unit']})",
            "critic's level" if x["uses_threshold"] else "measured costs",
            _number(x["multiplier"]),
            _number(x["multiplier_cap"]),
        ]
        for name, x in zip(report["cost_names"], report["constraint"], strict=True)
    ]
    header = [
        *("Constraint", "limit", "margin", "extra margin", "bound", "threshold (unit)", "held by"),
        *("multiplier", "cap"),
    ]
    return text_table(header, rows)


def _levels(report: Report) -> str:
    if not report["signals"]:
        return ""
    rows = []
    for name, x in report["signals"].items():
        level = x["level"]
        rows.append(
            [
                name,
                f"{level['gamma']:g}",
                f"{level['counted_states']:,} of {level['states']:,}",
                _number(level.get("critic_mean")),
                _number(level.get("realised_mean")),
                _estimate(level.get("ratio")),
                _estimate(level.get("bias")),
                _estimate(level.get("rank_correlation")),
                _number(level.get("stands_for_episode_cost")),
            ]
        )
    header = [
        *("Critic", "gamma", "states", "critic", "realised", "ratio [95%]", "bias [95%]"),
        *("rank correlation [95%]", "stands for"),
    ]
    weights = [x["level"]["tail_weight"] for x in report["signals"].values()]
    note = f"({report['critic']['episodes']} episodes; intervals by resampled episodes"
    if max(weights) > 0:
        note += f"; the time after the limit weighs at most {max(weights):.0%}, and its mean stands for it"
    if report["critic"]["has_bonus"]:
        note += "; the reward has its entropy bonus"
    return text_table(header, rows) + f"\n{note})"


def _phases(report: Report) -> str:
    rows = []
    for name, x in report["signals"].items():
        for label, key in (
            ("critic", "critic"),
            ("realised", "realised"),
            ("critic, all states", "critic_of_all"),
        ):
            rows.append([f"{name}: {label}", *(_number(v) for v in x["phases"][key])])
    for name in ("reward", *report["cost_names"]):
        for kind in ("stochastic", "deterministic"):
            per_step = report["episodes"][kind]["per_step"][name]
            rows.append([f"{name} per step, {kind_label(report, kind)}", *(_number(v) for v in per_step)])
    return text_table(["Fifths of the episode", *map(str, range(1, len(rows[0])))], rows)


def _actions(report: Report) -> str:
    rows = []
    for name, x in report["signals"].items():
        if x["spread"] is None:
            continue
        order = x["order"] or {}
        rows.append(
            [
                name,
                _number(x["spread"]["over_actions"]),
                _number(x["spread"]["over_states"]),
                _percent(x["spread"]["relative"]),
                _estimate(x["played_slope"]),
                _estimate(order.get("rank_correlation")),
                _estimate(order.get("slope")),
                _number(order.get("predicted_deviation")),
                _number(order.get("realised_deviation")),
            ]
        )
    actions = report["actions"]
    text = (
        f"standard deviation of sampled actions by dimension: {_list(actions['std'])}; share at the edge of "
        f"the box: {', '.join(f'{x:.0%}' for x in actions['at_edge'])}"
    )
    if "shares" in actions:
        text = f"share of each action: {', '.join(f'{x:.0%}' for x in actions['shares'])}"
    if not rows:
        return f"Actions: {text}"
    header = [
        *("Actions", "std over actions", "over states", "relative", "slope, played [95%]"),
        *("rank correlation [95%]", "slope, replayed [95%]", "predicted", "realised"),
    ]
    orders = [x["order"] for x in report["signals"].values() if x["order"]]
    note = "\n(slope 1: the differences between actions are right, 0: they mean nothing"
    if orders:
        note += (
            f"; from the rank correlation on: {orders[0]['states']} states x {orders[0]['actions']} first "
            "actions, replayed"
        )
    note += ")"
    return f"{text_table(header, rows)}{note}\n{text}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{x:.2f}" for x in values)


def _training(report: Report) -> str:
    if report["training"] is None:
        return ""
    rows = [
        [label, *(_number(v) for v in x["quarters"]), _number(x["last_tenth"])]
        for label, x in report["training"]["rows"].items()
    ]
    table = text_table(["Training by quarters", *(str(i + 1) for i in range(QUARTERS)), "last tenth"], rows)
    shares = [x for x in report["training"]["at_cap"] if x is not None]
    note = (
        f"\n(multiplier at its cap in the last quarter: {', '.join(f'{x:.0%}' for x in shares)})"
        if shares
        else ""
    )
    return table + note


def _buffer(report: Report) -> str:
    if report["buffer"] is None:
        return ""
    rows = [
        [name, *(_number(x[key]) for key in ("own", "buffer", "newest_tenth", "oldest_tenth"))]
        for name, x in report["buffer"].items()
    ]
    return text_table(["Mean value in", "own states", "buffer", "newest tenth", "oldest tenth"], rows)
