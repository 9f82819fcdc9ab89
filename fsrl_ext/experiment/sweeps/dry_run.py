"""A plan as text: what there is to run, what has been run, and about how long the rest will take."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsrl_ext.experiment.defaults import TUNED
from fsrl_ext.experiment.settings import as_text
from fsrl_ext.experiment.sweeps.estimate import Estimate, about, estimate, runs_side_by_side
from fsrl_ext.experiment.sweeps.names import flat_settings
from fsrl_ext.experiment.sweeps.plan import PlannedRun, StudyPlan
from fsrl_ext.experiment.sweeps.status import RunState, RunStatus, run_state
from fsrl_ext.report import text_table

MOST_LINES = 10
"""The most runs that are named one by one."""
_COLUMNS = {
    RunState.FINISHED: "finished",
    RunState.STARTED: "to continue",
    RunState.NEW: "to begin",
    RunState.BROKEN: "to begin",
    RunState.LOCKED: "in the way",
    RunState.OTHER: "in the way",
}
_ALWAYS = ("finished", "to continue", "to begin")
"""Columns that are there if no run is in them."""
_REMARKS = {
    RunState.BROKEN: "; it begins anew",
    RunState.LOCKED: "",
    RunState.OTHER: "; the study needs another folder",
}
_APART = ("cost_limit", "steps")
"""Fields that tell rows of tables apart without being named, as task and policy do."""


@dataclass(frozen=True)
class _Row:
    """The runs that differ in their seeds alone."""

    runs: tuple[PlannedRun, ...]

    @property
    def first(self) -> PlannedRun:
        return self.runs[0]

    @property
    def policy(self) -> str:
        """What the study calls the policy, and the policy itself if that is another name."""
        label, policy = self.first.label, self.first.config.policy
        return f"{label} ({policy})" if label not in ("", policy) else policy


def plan_text(plan: StudyPlan) -> str:
    """The plan as a table with a line for each combination of settings, and about how long it will take.

    :param plan: whose folder may hold some of its runs; nothing is written.
    """
    statuses = {run.name: run_state(plan.folder, run) for run in plan.runs}
    times = estimate(plan, {name: status.state for name, status in statuses.items()})
    rows = _rows(plan)
    common = _common_settings(rows)
    columns = [*_ALWAYS, *(["in the way"] if "in the way" in _kinds(statuses) else [])]
    header = ["task", "policy", "settings", "seeds", *columns, "time of a run"]
    settings = _shown_settings(rows, common)
    cells = [_cells(row, text, statuses, times, columns) for row, text in zip(rows, settings, strict=True)]
    table = text_table(header, cells, left=(0, 1, 2))
    lines = [table, ""]
    if common:
        lines.append(f"all runs:  {_assignments(common)}")
    lines += [
        f"runs:      {len(plan.runs)} in all, {_counts(statuses)}, in {plan.folder}",
        f"names:     {plan.runs[0].name}{', ...' if len(plan.runs) > 1 else ''}",
        f"time:      {_time(plan, times)}",
        f"compare:   {table_command(plan)}",
    ]
    named = [
        f"{name} {x.state.value}: {x.reason}{_REMARKS[x.state]}"
        for name, x in statuses.items()
        if x.state in _REMARKS
    ]
    lines += named[:MOST_LINES]
    if len(named) > MOST_LINES:
        lines.append(f"and {len(named) - MOST_LINES} more")
    return "\n".join(lines)


def _rows(plan: StudyPlan) -> list[_Row]:
    rows: dict[Any, list[PlannedRun]] = {}
    for run in plan.runs:
        rows.setdefault((run.config.task, run.label, run.own_settings), []).append(run)
    return [_Row(tuple(runs)) for runs in rows.values()]


def _common_settings(rows: Sequence[_Row]) -> tuple[tuple[str, str], ...]:
    """What all runs have in common of their own settings; nothing of a single row, which shows them."""
    if len(rows) == 1:
        return ()
    return tuple(x for x in rows[0].first.own_settings if all(x in row.first.own_settings for row in rows))


def _shown_settings(rows: Sequence[_Row], common: Sequence[tuple[str, str]]) -> list[str]:
    """For each row the settings that rows of its policy have of their own, defaults included."""
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row.policy, set()).update(name for name, _ in row.first.own_settings)
    texts = []
    for row in rows:
        limit = {"cost_limit": row.first.config.cost_limit}
        values = {**limit, "preset": TUNED, **flat_settings(row.first.config)}
        all_texts = {name: as_text(x, "/") for name, x in values.items() if name in names[row.policy]}
        all_texts |= dict(row.first.own_settings)
        texts.append(_assignments([x for x in all_texts.items() if x not in common]) or "-")
    return texts


def _cells(
    row: _Row,
    settings: str,
    statuses: Mapping[str, RunStatus],
    times: Estimate,
    columns: Sequence[str],
) -> list[str]:
    states = [_COLUMNS[statuses[run.name].state] for run in row.runs]
    seconds = times.each.get(row.first.name)
    return [
        row.first.config.task,
        row.policy,
        settings,
        seeds_text([run.config.seed for run in row.runs]),
        *(str(states.count(column)) for column in columns),
        "unknown" if seconds is None else about(seconds),
    ]


def _assignments(settings: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{name}={text}" for name, text in settings)


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds in order, with a range for three or more that follow each other: ``0-4,7``."""
    parts: list[str] = []
    for _, group in itertools.groupby(enumerate(sorted(seeds)), lambda x: x[1] - x[0]):
        run = [seed for _, seed in group]
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
    return ",".join(parts)


def _kinds(statuses: Mapping[str, RunStatus]) -> list[str]:
    """For each run the column that it is counted in."""
    return [_COLUMNS[status.state] for status in statuses.values()]


def _counts(statuses: Mapping[str, RunStatus]) -> str:
    kinds = _kinds(statuses)
    columns = [column for column in dict.fromkeys(_COLUMNS.values()) if column in kinds]
    return ", ".join(f"{kinds.count(column)} {column}" for column in columns)


def _time(plan: StudyPlan, times: Estimate) -> str:
    """How long the rest will take, and where the estimate comes from."""
    slots = runs_side_by_side(plan.resources)
    if times.unknown and not (times.measured or times.assumed):
        return f"unknown, because no speed is known of {_some(times.unknown)}"
    if times.elapsed is None:
        text = f"{about(times.total)} of one run after the other; on a cluster the runs share this time out"
    else:
        side = "one run after the other" if slots == 1 else f"{slots} runs side by side"
        text = f"{about(times.elapsed)} with {side}"
    if times.measured:
        text += ", from the finished runs here"
        if times.assumed:
            text += f"; {_some(times.assumed)}: from runs on another machine"
    else:
        text += ", from runs on another machine"
    return text + (f"; {_some(times.unknown)}: unknown, and not counted" if times.unknown else "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def table_command(plan: StudyPlan) -> str:
    """The command that compares the runs of a study."""
    names = telling_fields(plan)
    by = f" --by {','.join(names)}" if len(names) > 1 else ""
    return f"fsrl-ext table {shlex.quote(str(plan.folder))}{by}"


def telling_fields(plan: StudyPlan) -> list[str]:
    """Config fields that tell the rows of tables and figures apart, for ``--by``: few, and policy first.

    Task, cost limit and step budget always tell rows apart. Of the other fields the one that splits the most
    rows comes first, and fields that the study gives win over those that a preset changes.
    """
    rows = [row.first for row in _rows(plan)]
    values = [flat_settings(run.config) for run in rows]
    given = {name for run in rows for name, _ in run.own_settings} - {"preset"}
    names = {name: None for flat in values for name in flat if name not in ("policy_config", "training")}
    texts = [{name: as_text(flat[name]) for name in names if name in flat} for flat in values]
    candidates = [x for x in names if len({text.get(x) for text in texts}) > 1]
    candidates.sort(key=lambda name: name not in given)

    def number_of_groups(fields: Sequence[str]) -> int:
        return len({tuple(text.get(x) for x in ("task", *_APART, *fields)) for text in texts})

    fields = ["policy"]
    while number_of_groups(fields) < len(rows) and candidates:
        best = max(candidates, key=lambda name: number_of_groups([*fields, name]))
        if number_of_groups([*fields, best]) == number_of_groups(fields):
            break
        fields.append(best)
        candidates.remove(best)
    return fields
