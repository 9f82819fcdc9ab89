"""The runs of a page, as its parts see them: panels, rows and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fsrl_ext.report.study.panels import Panel, make_panels
from fsrl_ext.report.study.rows import Row, make_rows, mean_return
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import Group
from fsrl_ext.report.study.style import colours


@dataclass(frozen=True)
class Selection:
    """The runs that were selected, grouped.

    :param runs: all of them.
    :param fields: config fields that tell rows apart, beside task, limits and steps.
    :param skipped: a line for each run that was left out.
    """

    runs: Sequence[StudyRun]
    fields: Sequence[str]
    skipped: Sequence[str]

    @cached_property
    def panels(self) -> list[Panel]:
        """One for each task, with the names of its groups."""
        return make_panels(self.runs, self.fields, ["task"])

    @cached_property
    def rows(self) -> list[Row]:
        """By task, limits and steps; those within the limits first, and of these the highest return."""

        def order(row: Row) -> tuple[object, ...]:
            x = row.group
            return x.task, x.limits, x.steps, not row.within("best"), -mean_return(x, "best")

        return sorted(make_rows([x for panel in self.panels for x in panel.groups.values()]), key=order)

    @property
    def groups(self) -> list[Group]:
        """The groups in the order of the rows."""
        return [row.group for row in self.rows]

    @cached_property
    def _names(self) -> dict[object, str]:
        return {_key(x): name for panel in self.panels for name, x in panel.groups.items()}

    def name(self, group: Group) -> str:
        """The name of a group in the figures, which differs from those of the other groups of its task."""
        return self._names[_key(group)]

    def marks(self, group: Group) -> dict[str, str]:
        """The attributes by which the page's filters find what belongs to a group."""
        return {"data-task": group.task, "data-series": self.name(group)}

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour of each name, which is that of ``fsrl-ext plot``."""
        policies: dict[str, set[str]] = {}
        for panel in self.panels:
            for name, member in panel.groups.items():
                policies.setdefault(name, set()).update(run.policy for run in member.runs)
        return colours(policies)

    @property
    def num_curves(self) -> int:
        """How many curves single seeds have: of the return and each cost, in two kinds of episodes."""
        return sum(2 * (1 + len(run.limits)) for run in self.runs)

    @property
    def title(self) -> str:
        """What was compared, in a few words."""
        runs = [run for panel in self.panels for x in panel.groups.values() for run in x.runs]
        policies = list(dict.fromkeys(run.policy for run in runs))
        tasks = list(dict.fromkeys(run.task for run in runs))
        if len(self.runs) == 1:
            return f"{policies[0]} on {tasks[0]}, seed {self.runs[0].seed}"
        return f"{_names_or_number(policies, 'policies')} on {_names_or_number(tasks, 'tasks')}"


def _names_or_number(names: Sequence[str], what: str) -> str:
    return ", ".join(names) if len(names) < 4 else f"{len(names)} {what}"


def _key(group: Group) -> object:
    return group.task, group.limits, group.steps, group.by
