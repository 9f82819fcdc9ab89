"""What came out, in sentences and in the tables of ``fsrl-ext table``, feasible rows first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsrl_ext.report.statistics import cost_interval, mean_interval, mean_text
from fsrl_ext.report.study.layout import Cell, Section
from fsrl_ext.report.study.result_sections import final_policies
from fsrl_ext.report.study.rows import Row
from fsrl_ext.report.study.select import Group, value_text
from fsrl_ext.report.study.training_section import on_the_way


@dataclass(frozen=True)
class Verdict:
    """The outcome on one task with its limits and steps.

    :param problem: limits and steps, as a text.
    :param text: sentences about the best row, and which rows are above a limit.
    """

    task: str
    problem: str
    text: str


def verdicts(rows: Sequence[Row], name: Callable[[Group], str]) -> list[Verdict]:
    """One verdict for each task, limits and step budget.

    :param rows: of each of these, the row of the highest return within the limits comes first, if there is
        one.
    :param name: gives the name of a group.
    """
    problems: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        problems.setdefault((row.group.task, row.group.limits, row.group.steps), []).append(row)
    verdicts = []
    for members in problems.values():
        member = members[0].group
        limit = f"cost limit {value_text(member.limits)}" if _is_constrained(members[0]) else "no cost limit"
        text = _sentences(members, name)
        verdicts.append(Verdict(member.task, f"{limit}, {member.steps:,} steps", text))
    return verdicts


def _sentences(rows: Sequence[Row], name: Callable[[Group], str]) -> str:
    first, several = rows[0], len(rows) > 1
    above = [name(row.group) for row in rows if not row.within("best")]
    if not first.within("best"):
        subject = "no row keeps" if several else f"{above[0]} does not keep"
        return f"{subject} the limit with its best policies, on average over seeds."
    subject = name(first.group)
    if not _is_constrained(first):
        verb = "has the highest return" if several else "has the return"
    else:
        verb = "has the highest return within the limit" if several else "keeps the limit with the return"
    returns = [run.best.return_mean for run in first.runs]
    mean = mean_text(float(np.mean(returns)), mean_interval(returns), first.digits)
    costs = zip(*(run.best.cost_mean for run in first.runs), strict=True)
    cost = " / ".join(mean_text(float(np.mean(x)), cost_interval(x), 1) for x in costs)
    text = f"{subject} {verb}{':' if several else ''} {mean} at the cost {cost}"
    if _is_constrained(first):
        feasible = sum(run.best.feasible for run in first.runs)
        text += f", with {feasible} of {len(first.runs)} seeds feasible"
    return f"{text}. Above the limit: {', '.join(above)}." if above else f"{text}."


def result_tables(rows: Sequence[Row]) -> tuple[Section, Section]:
    """The tables of the final policies, with a column of verdicts, and of the training."""
    final = final_policies(rows)
    place = len(final.left)
    table = [
        [*cells[:place], _word(row), *cells[place:]] for row, cells in zip(rows, final.rows, strict=True)
    ]
    header = [*final.header[:place], "verdict", *final.header[place:]]
    return replace(final, header=header, rows=table, left=range(place + 1)), on_the_way(rows)


def _word(row: Row) -> Cell:
    if not _is_constrained(row):
        return Cell("no limit")
    return Cell("within limit" if row.within("best") else "above limit")


def _is_constrained(row: Row) -> bool:
    return any(run.constrained for run in row.runs)
