"""The table of final policies, and what it shares with the table of the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fsrl_ext.report.statistics import cost_interval, mean_interval, mean_text, share_interval
from fsrl_ext.report.study import measures
from fsrl_ext.report.study.layout import Cell, Section
from fsrl_ext.report.study.rows import WHICH, Row
from fsrl_ext.report.study.select import value_text

Columns = dict[str, Callable[[Row], Cell]]
Notes = list[tuple[tuple[str, ...], str]]
"""Sentences below a table, each with the columns that it is about."""


_EPISODE_COSTS = ("best episode cost", "last episode cost")


def final_policies(rows: Sequence[Row]) -> Section:
    """Return and cost of the best feasible and of the last policies, and how many seeds are feasible."""
    columns, notes = policy_columns(), policy_notes(rows)
    if all(row.group.limit_unit == "episode" for row in rows):  # the costs are episode costs already
        columns = {name: cell for name, cell in columns.items() if name not in _EPISODE_COSTS}
        notes = [(about, text) for about, text in notes if about != _EPISODE_COSTS]
    return make_section("policies", "Final policies", rows, columns, [text for _, text in notes])


def policy_columns() -> Columns:
    """The columns about the final evaluations, by name."""
    return {
        "best return": lambda row: _return(row, "best"),
        "best cost": lambda row: _cost(row, "best"),
        "best episode cost": lambda row: _episode_cost(row, "best"),
        "best feasible": lambda row: _feasible(row, "best"),
        "last return": lambda row: _return(row, "last"),
        "last cost": lambda row: _cost(row, "last"),
        "last episode cost": lambda row: _episode_cost(row, "last"),
        "last feasible": lambda row: _feasible(row, "last"),
        "collapsed": _collapsed,
    }


def policy_notes(rows: Sequence[Row]) -> Notes:
    """What must be known to read :func:`policy_columns` of these rows."""
    returns, costs = ("best return", "last return"), ("best cost", "last cost")
    feasible = ("best feasible", "last feasible")
    notes: Notes = [
        (
            (*returns, *costs, *feasible, "collapsed"),
            "best: the policy with the highest return of those that were feasible in a selection, or the one "
            "with the least violation if none was. last: the policy at the end of the training.",
        ),
        (
            (*returns, *costs),
            "return, cost: mean over seeds of the final evaluation, deterministic episodes on seeds of their "
            "own [95% interval over seeds: Student t, cut at 0 for costs].",
        ),
        (
            _EPISODE_COSTS,
            "cost: in the unit of the limit, which is the discounted cost of an episode where the task says "
            "so. episode cost: the sum of the costs of an episode.",
        ),
        (
            feasible,
            "feasible: seeds in which every mean cost plus one standard error is at most the limit "
            "[95% interval of their share: exact binomial].",
        ),
        (
            ("collapsed",),
            f"collapsed: seeds whose last policy has less than {measures.COLLAPSED_BELOW:.0%} of its best "
            "policy's return.",
        ),
    ]
    if any(not row.within(which) for row in rows for which in WHICH):
        text = "!: the mean cost over the seeds is above a limit, and the return does not count."
        notes.append((returns, text))
    if any(won for row in rows for won in row.winner.values()):
        text = (
            "bold (* in text): the highest mean return of the rows of one task, limit and step budget whose "
            "mean cost is within the limit."
        )
        notes.append((returns, text))
    return notes


def make_section(
    name: str, title: str, rows: Sequence[Row], columns: Columns, notes: Sequence[str]
) -> Section:
    """A table of what tells the rows apart, and of some columns."""
    fields = [key for key, _ in rows[0].group.by]
    header = ["task", *fields, "limit", "steps", "seeds", *columns]
    table = []
    for row in rows:
        seeds = len(row.runs)
        first = [
            Cell(row.group.task, {"task": row.group.task}),
            *(
                Cell("" if (key, value) == ("label", "none") else value, {key: value})
                for key, value in row.group.by
            ),
            Cell(value_text(row.group.limits), {"limit": value_text(row.group.limits)}),
            Cell(f"{row.group.steps:,}", {"steps": row.group.steps}),
            Cell(str(seeds), {"seeds": seeds}),
        ]
        table.append([*first, *(cell(row) for cell in columns.values())])
    return Section(name, title, header, table, left=range(1 + len(fields)), notes=notes)


def _return(row: Row, which: str) -> Cell:
    values = [getattr(run, which).return_mean for run in row.runs]
    text, numbers = mean_cell(values, f"{which}_return", digits=row.digits)
    mark = "" if row.within(which) else " !"
    numbers[f"{which}_within_limit"] = row.within(which)
    return Cell(text + mark, numbers, bold=row.winner[which])


def _cost(row: Row, which: str) -> Cell:
    return cost_cell(row, [getattr(run, which).cost_mean for run in row.runs], f"{which}_cost", interval=True)


def _episode_cost(row: Row, which: str) -> Cell:
    judged = [getattr(run, which) for run in row.runs]
    if row.group.limit_unit == "episode":
        return cost_cell(row, [x.cost_mean for x in judged], f"{which}_episode_cost", interval=True)
    known = [x.other_cost_mean for x in judged if x.other_cost_mean is not None]
    # A mean over some of the seeds would stand beside means over all of them.
    values = known if len(known) == len(judged) else []
    return cost_cell(row, values, f"{which}_episode_cost", interval=True)


def cost_cell(row: Row, values: Sequence[Sequence[float]], name: str, *, interval: bool) -> Cell:
    """The means over seeds of values ``[seeds, C]``, one after another for several costs."""
    texts: list[str] = []
    numbers: dict[str, Any] = {}
    for i, one in enumerate(zip(*values, strict=True)):
        label = cost_column(row, name, i)
        text, of_one = mean_cell(list(one), label, cost=True, interval=interval)
        texts.append(text)
        numbers |= of_one
    return Cell(" / ".join(texts) or "-", numbers)


def cost_column(row: Row, name: str, cost: int) -> str:
    """The name of a column about a cost: ``best_cost``, ``best_cost0``, or ``best_cost_vases``."""
    names = row.group.cost_names
    if names:
        return f"{name}_{names[cost]}"
    return name if len(row.group.limits) == 1 else f"{name}{cost}"


def mean_cell(
    values: Sequence[float], name: str, *, cost: bool = False, interval: bool = True, digits: int = 1
) -> tuple[str, dict[str, Any]]:
    """The mean of finite values with its interval, as a text and as numbers by column name."""
    mean = float(np.mean(values)) if len(values) else math.nan
    if not math.isfinite(mean):
        return "-", {f"{name}_mean": None}
    ends = (cost_interval if cost else mean_interval)(values) if interval else None
    numbers: dict[str, Any] = {f"{name}_mean": mean}
    if interval:
        numbers[f"{name}_low"], numbers[f"{name}_high"] = ends or (None, None)
    return mean_text(mean, ends, digits), numbers


def _feasible(row: Row, which: str) -> Cell:
    if not any(run.constrained for run in row.runs):
        return Cell("-", {f"{which}_feasible": None})
    count, total = sum(getattr(run, which).feasible for run in row.runs), len(row.runs)
    low, high = share_interval(count, total)
    return Cell(f"{count}/{total} [{low:.0%}, {high:.0%}]", {f"{which}_feasible": count})


def _collapsed(row: Row) -> Cell:
    count = sum(map(measures.has_collapsed, row.runs))
    return Cell(f"{count}/{len(row.runs)}", {"collapsed": count})
