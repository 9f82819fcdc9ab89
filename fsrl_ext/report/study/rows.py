"""Rows of the tables: groups of runs, compared with the other groups of their task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsrl_ext.report.study import measures
from fsrl_ext.report.study.measures import within_limits
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import Group

WHICH = ("best", "last")


@dataclass(frozen=True)
class Row:
    """A group with what its cells need of the other groups.

    :param digits: decimals of returns.
    :param target: the return that a first policy must reach; ``None`` if no row is within its limits.
    :param winner: whether the best, and whether the last policies have the highest mean return of those rows
        of their task, limits and step budget that are within their limits.
    """

    group: Group
    digits: int
    target: float | None
    winner: dict[str, bool]

    @property
    def runs(self) -> tuple[StudyRun, ...]:
        """The runs of the group."""
        return self.group.runs

    def within(self, which: str) -> bool:
        """Whether the policies' mean costs over the seeds are within the limits."""
        return within(self.group, which)


def mean_return(group: Group, which: str) -> float:
    """The mean over the seeds of the policies' returns in the final evaluation."""
    return float(np.mean([getattr(run, which).return_mean for run in group.runs]))


def within(group: Group, which: str) -> bool:
    """Whether the policies' mean costs over the seeds, in the final evaluation, are within the limits."""
    costs = np.mean([getattr(run, which).cost_mean for run in group.runs], axis=0)
    return within_limits(costs.tolist(), group.limits)


def make_rows(groups: Sequence[Group]) -> list[Row]:
    """A row for each group; rows of one task, limits and step budget are compared with each other."""
    rivals: dict[Any, list[Group]] = {}
    for member in groups:
        rivals.setdefault(_key(member), []).append(member)
    rows = []
    for member in groups:
        others = rivals[_key(member)]
        highest = {
            which: max((mean_return(x, which) for x in others if within(x, which)), default=None)
            for which in WHICH
        }
        winner = {
            which: len(others) > 1 and within(member, which) and mean_return(member, which) == highest[which]
            for which in WHICH
        }
        best = highest["best"]
        size = max(abs(mean_return(x, "best")) for x in others)
        rows.append(
            Row(
                group=member,
                digits=1 if size >= 10 else 2,
                target=None if best is None else measures.fraction_of(best, measures.REACHED),
                winner=winner,
            )
        )
    return rows


def _key(group: Group) -> tuple[Any, ...]:
    return group.task, group.limits, group.steps
