"""Published results to stand beside ours, each with what its protocol has of its own.

``published.csv`` holds numbers from omnisafe's benchmark tables, from the training curves that FSRL
publishes, and from two independent runs. It has no navigation results on fixed layouts, with other time steps
or with short episodes (those of the CVPO, CAL and COX-Q papers, of SafeDreamer and of omnisafe's model-based
policies), because they are results on other tasks.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from fsrl_ext.report.study import measures
from fsrl_ext.report.study.layout import Cell, Section
from fsrl_ext.report.study.rows import Row
from fsrl_ext.report.study.select import Group


@dataclass(frozen=True)
class Protocol:
    """How a source made its numbers.

    :param source: its short name.
    :param episodes: which episodes a number is over.
    :param seeds: how many runs.
    :param caveat: what differs from the protocol of this library.
    """

    source: str
    episodes: str
    seeds: str
    caveat: str


_OMNISAFE = "evaluations after 1M to 10M steps on the suite's own tasks; ± is a standard deviation"

PROTOCOLS = {
    "omnisafe": Protocol("omnisafe table", "10 deterministic", "several", _OMNISAFE),
    "omnisafe_circle": Protocol(
        "omnisafe table (circle)",
        "10 deterministic",
        "several",
        f"{_OMNISAFE}; one published episode is two of the task's 500-step episodes, because a 1000-step "
        "limit lies around automatic resets: return, cost and limit are halved here",
    ),
    "fsrl": Protocol(
        "fsrl curves",
        "training, sampled",
        "3",
        "a point of a training curve on the suite's own task, read by eye to a few per cent; where no cost "
        "is given, the curve ended at about 5 to 13 for a limit of 10, and near the limit for 25",
    ),
    "fsrl_again": Protocol(
        "fsrl, run again", "not stated", "3", "an independent run of FSRL's code; ± as it is given there"
    ),
    "replication": Protocol(
        "replication 2026",
        "not stated",
        "15",
        "a preregistered replication of the omnisafe row; 3 to 9 of its 15 seeds collapsed",
    ),
}
"""The protocols of ``published.csv`` by name."""


@dataclass(frozen=True)
class Anchor:
    """One published row; NaN where the source gives no number."""

    protocol: Protocol
    task: str
    policy: str
    steps: int
    cost_limit: float
    mean_return: float
    return_spread: float
    mean_cost: float
    cost_spread: float


@functools.cache
def anchors() -> tuple[Anchor, ...]:
    """Every published row, per episode of the task."""
    text = (files("fsrl_ext.report.study") / "published.csv").read_text()
    rows = []
    for row in csv.DictReader(text.splitlines()):
        # One published episode of the circle tasks is two episodes of the task.
        share = 0.5 if row["protocol"] == "omnisafe_circle" else 1.0
        numbers = (
            share * float(row[name] or "nan")
            for name in ("cost_limit", "return", "return_spread", "cost", "cost_spread")
        )
        protocol = PROTOCOLS[row["protocol"]]
        rows.append(Anchor(protocol, row["task"], row["policy"], int(row["steps"]), *numbers))
    return tuple(rows)


def best_published(task: str) -> float | None:
    """The highest published return of a row whose cost is given and within its own limit."""
    within = (x.mean_return for x in anchors() if x.task == task and x.mean_cost <= x.cost_limit)
    return max(within, default=None)


def beside_published(rows: Sequence[Row]) -> Section:
    """Our rows, and below them what is published for the same tasks and policies.

    Of other policies there is the best row of a task that is within its own limit.
    """
    header = [
        "task",
        "policy",
        "source",
        "episodes",
        "seeds",
        "steps",
        "limit",
        "return",
        "cost",
        "differs in",
    ]
    table, used = [], {}
    for task in dict.fromkeys(row.group.task for row in rows):
        here = [row for row in rows if row.group.task == task]
        policies = {run.policy for row in here for run in row.runs}
        published = [x for x in anchors() if x.task == task]
        best = best_published(task)
        shown = [
            x
            for x in published
            if x.policy in policies or (x.mean_return == best and x.mean_cost <= x.cost_limit)
        ]
        for row in here:
            table += _ours(row)
        for anchor in sorted(shown, key=lambda x: (x.policy, x.protocol.source, x.steps)):
            used[anchor.protocol.source] = anchor.protocol
            table.append(_theirs(anchor, here))
    notes = [
        "ours: mean over seeds; best and last are policies in the final evaluation, training is the last "
        f"{measures.LATE:.0%} of the steps with sampled actions. Training curves of others stand beside that "
        "row, evaluations beside the row last.",
        "differs in: what of the limit and of the steps differs from all our rows of the task.",
        *(f"{protocol.source}: {protocol.caveat}." for protocol in used.values()),
    ]
    if not used:
        notes.append("Nothing is published for these tasks and policies, or nothing that compares.")
    return Section("published", "Beside published results", header, table, left=(0, 1, 2, 3, 9), notes=notes)


def _ours(row: Row) -> list[list[Cell]]:
    """The best and the last policies of a row, and its late training episodes."""
    group = row.group
    lines = []
    for which in ("best", "last"):
        judged = [getattr(run, which) for run in row.runs]
        returns = float(np.mean([x.return_mean for x in judged]))
        costs = np.mean([x.cost_mean for x in judged], axis=0).tolist()
        mark = "" if row.within(which) else " !"
        lines.append(_our_line(group, f"{which}, deterministic", returns, costs, row.digits, mark))
    late = [x for x in map(measures.late_training, row.runs) if x is not None]
    if late:
        returns, costs = float(np.mean([x[0] for x in late])), np.mean([x[1] for x in late], axis=0).tolist()
        lines.append(_our_line(group, "training, sampled", returns, costs, row.digits, ""))
    return lines


def _our_line(
    group: Group, episodes: str, mean_return: float, costs: list[float], digits: int, mark: str
) -> list[Cell]:
    limit = "/".join(f"{x:g}" for x in group.limits)
    return [
        Cell(group.task, {"task": group.task}),
        Cell(group.name, {"policy": group.name}),
        Cell("ours", {"source": "ours"}),
        Cell(episodes, {"episodes": episodes}),
        Cell(str(len(group.runs)), {"seeds": len(group.runs)}),
        Cell(f"{group.steps:,}", {"steps": group.steps}),
        Cell(limit, {"limit": limit}),
        Cell(f"{mean_return:.{digits}f}{mark}", {"return": mean_return}),
        Cell(" / ".join(f"{x:.1f}" for x in costs), {"cost": costs[0] if len(costs) == 1 else None}),
        Cell("", {"differs_in": ""}),
    ]


def _theirs(anchor: Anchor, ours: Sequence[Row]) -> list[Cell]:
    digits = ours[0].digits
    protocol = anchor.protocol
    differs = []
    if all(row.group.limits != (anchor.cost_limit,) for row in ours):
        differs.append("limit")
    steps = [row.group.steps for row in ours]
    if anchor.steps not in steps:
        nearest = min(steps, key=lambda x: abs(math.log(x / anchor.steps)))
        ratio = anchor.steps / nearest
        differs.append(f"steps ({f'{ratio:,.0f}' if ratio >= 10 else f'{ratio:.2g}'} times ours)")
    mark = " !" if anchor.mean_cost > anchor.cost_limit else ""
    return [
        Cell(anchor.task, {"task": anchor.task}),
        Cell(anchor.policy, {"policy": anchor.policy}),
        Cell(protocol.source, {"source": protocol.source}),
        Cell(protocol.episodes, {"episodes": protocol.episodes}),
        Cell(protocol.seeds, {"seeds": protocol.seeds}),
        Cell(f"{anchor.steps:,}", {"steps": anchor.steps}),
        Cell(f"{anchor.cost_limit:g}", {"limit": anchor.cost_limit}),
        _spread(anchor.mean_return, anchor.return_spread, digits, "return", mark),
        _spread(anchor.mean_cost, anchor.cost_spread, 1, "cost", ""),
        Cell(", ".join(differs), {"differs_in": ", ".join(differs)}),
    ]


def _spread(mean: float, spread: float, digits: int, name: str, mark: str) -> Cell:
    numbers: dict[str, Any] = {name: mean, f"{name}_spread": spread}
    if math.isnan(mean):
        return Cell("not given", numbers)
    text = f"{mean:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")
    return Cell(text + mark, numbers)
