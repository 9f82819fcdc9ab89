"""Which groups stand in one panel of a figure, and what they are called there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsrl_ext.cost_names import cost_label, cost_word
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import ABSENT, Group, group, value_text


@dataclass(frozen=True)
class Panel:
    """The groups of one facet.

    :param title: the task, and the values of the other fields that tell panels apart.
    :param groups: by the name that the legend shows.
    """

    title: str
    groups: dict[str, Group]

    @property
    def num_costs(self) -> int:
        """The largest number of costs of its groups."""
        return max(len(x.limits) for x in self.groups.values())

    def cost_label(self, cost: int) -> str:
        """What an axis calls a cost; the groups of a panel have costs of the same names and unit."""
        first = next(iter(self.groups.values()))
        return cost_label(first.cost_names, self.num_costs, cost, cost_word(first.limit_unit))

    def limits(self, cost: int) -> list[float]:
        """The finite limits of a cost, each once."""
        there = {x.limits[cost] for x in self.groups.values() if cost < len(x.limits)}
        return sorted(x for x in there if np.isfinite(x))


def sweeps(panel: Panel) -> dict[str, list[Group]]:
    """The groups of a panel that differ in their limits alone, in the order of the limits, by their name."""
    groups = panel.groups.values()
    budgets = {x.name: {other.steps for other in groups if other.name == x.name} for x in groups}
    members: dict[str, list[Group]] = {}
    for member in groups:
        name = member.name if len(budgets[member.name]) == 1 else f"{member.name}, {member.steps:,} steps"
        members.setdefault(name, []).append(member)
    return {name: sorted(of_name, key=lambda x: x.limits) for name, of_name in members.items()}


def make_panels(runs: Sequence[StudyRun], by: Sequence[str], facet: Sequence[str]) -> list[Panel]:
    """Panels by task and by the fields of the facet, with groups by the fields of ``by``.

    Runs of different tasks are never in one panel. Names get the limit or the step budget where they would be
    the same without.
    """
    others = [x for x in facet if x != "task"]
    members: dict[tuple[str, ...], list[StudyRun]] = {}
    for run in runs:
        key = (run.task, *(value_text(run.settings.get(name, ABSENT)) for name in others))
        members.setdefault(key, []).append(run)
    panels = []
    for key in sorted(members):
        title = ", ".join([key[0], *(f"{name} {value}" for name, value in zip(others, key[1:], strict=True))])
        panels.append(Panel(title, _named(group(members[key], by))))
    return panels


def _named(groups: Sequence[Group]) -> dict[str, Group]:
    """The groups by names that differ."""
    names = [x.name for x in groups]
    for add in (
        lambda x: f"{x.name}, limit {value_text(x.limits)}",
        lambda x: f"{x.name}, {x.steps:,} steps",
        lambda x: f"{x.name}, limit {value_text(x.limits)}, {x.steps:,} steps",
    ):
        if len(set(names)) == len(names):
            break
        names = [add(x) if names.count(name) > 1 else name for x, name in zip(groups, names, strict=True)]
    return dict(zip(names, groups, strict=True))
