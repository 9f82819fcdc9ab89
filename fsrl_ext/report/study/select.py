"""Selection and grouping of runs by the fields of their configs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.study.run import StudyRun

ABSENT = "-"
"""The value of a field that a run does not have."""


def value_text(value: Any) -> str:
    """A value of a config as it is written on the command line: ``10``, ``true``, ``128/128``, ``none``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return "/".join(map(value_text, value))
    return str(value)


def _canonical(text: str) -> str:
    """The text in the form of :func:`value_text`, so that ``1e5`` and ``100_000`` are the same number."""
    parts = []
    for part in text.split("/"):
        try:
            parts.append(f"{float(part):.10g}")
        except ValueError:
            parts.append(part.lower() if part.lower() in ("none", "true", "false") else part)
    return "/".join(parts)


def first_ones(names: Sequence[str], most: int = 5) -> str:
    """Names separated by commas; of many, the first ones and how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def field_name(text: str, runs: Iterable[StudyRun], option: str) -> str:
    """The name of a config field, from a text in which ``-`` may stand for ``_``.

    :param option: what the error names.
    :raises ValueError: if no run has the field.
    """
    known = {name for run in runs for name in run.settings}
    name = text.strip().replace("-", "_")
    if name not in known:
        close = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; for example {', '.join(sorted(known)[:5])}"
        raise ValueError(f"{option} must name a field of the runs' configs, got {text!r}{hint}")
    return name


def where(runs: Sequence[StudyRun], conditions: Sequence[str]) -> list[StudyRun]:
    """The runs that meet every condition.

    :param conditions: ``field=value[,value]``; a value with several numbers is written ``128/128``. A run
        without the field does not meet the condition.
    :raises ValueError: for a text of another form, an unknown field, and a value that no run has.
    :raises RunFolderError: if no run meets all conditions.
    """
    chosen = list(runs)
    for condition in conditions:
        key, equals, values = condition.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise ValueError(f"--where must be field=value[,value], got {condition!r}")
        name = field_name(key, runs, "--where")
        wanted = {_canonical(x.strip()) for x in values.split(",")}
        there = {value_text(run.settings[name]) for run in runs if name in run.settings}
        missing = sorted(wanted - there)
        if missing:
            raise ValueError(
                f"--where {name} must be one of {first_ones(sorted(there), 8)}, got {', '.join(missing)}"
            )
        chosen = [run for run in chosen if value_text(run.settings.get(name, ABSENT)) in wanted]
    if not chosen:
        raise RunFolderError(f"no run meets --where {' '.join(conditions)}; there are {len(runs)} runs")
    return chosen


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds, and in nothing that tells rows or curves apart.

    :param task: of all its runs.
    :param limits: of all its runs.
    :param steps: the step budget of all its runs.
    :param by: field names and values that the group was made by.
    :param runs: in the order of their seeds.
    """

    task: str
    limits: tuple[float, ...]
    steps: int
    by: tuple[tuple[str, str], ...]
    runs: tuple[StudyRun, ...]

    @property
    def name(self) -> str:
        """The values of the fields that the group was made by, without the label of runs that have none."""
        return " ".join(value for key, value in self.by if (key, value) != ("label", "none")) or ABSENT

    @property
    def limit_unit(self) -> LimitUnit:
        """The unit of the limits of all its runs."""
        return self.runs[0].limit_unit

    @property
    def cost_names(self) -> tuple[str, ...] | None:
        """The names of the costs of all its runs; ``None`` for costs without names."""
        return self.runs[0].cost_names

    @property
    def seeds(self) -> tuple[int, ...]:
        """The runs' seeds."""
        return tuple(run.seed for run in self.runs)


def default_fields(runs: Iterable[StudyRun]) -> list[str]:
    """What rows are told apart by: the policy, and the label if there are labels."""
    return ["policy", "label"] if any(run.label for run in runs) else ["policy"]


def group(runs: Sequence[StudyRun], fields: Sequence[str]) -> list[Group]:
    """Groups of runs by task, limits, step budget and the named fields, in this order.

    Tasks are sorted by name, in which the unit of the limits stands. Limits, their units and budgets always
    tell groups apart, because means over runs of different limits or budgets say nothing.
    """
    members: dict[tuple[str, tuple[float, ...], int, tuple[tuple[str, str], ...]], list[StudyRun]] = {}
    for run in runs:
        by = tuple((name, value_text(run.settings.get(name, ABSENT))) for name in fields)
        steps = int(run.settings.get("steps", run.env_step))
        members.setdefault((run.task, run.limits, steps, by), []).append(run)
    keys = sorted(members, key=lambda x: (x[0], [_order(value) for _, value in x[3]], x[1], x[2]))
    return [Group(*key, tuple(sorted(members[key], key=lambda run: run.seed))) for key in keys]


def _order(text: str) -> tuple[float, str]:
    """Sorts numbers by their size, before texts."""
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text


# What may differ between the runs of a group: the seed itself, and where and how fast a run is computed.
_HARMLESS = {
    "seed",
    "device",
    "threads",
    "workers",
    "worker_type",
    "collect_ahead",
    "thread",
    "name",
    "logdir",
}


def mixed_settings(groups: Iterable[Group]) -> list[str]:
    """A line for each group whose runs differ in more than the seed, naming the fields and their values.

    A field that a run does not have, as runs of earlier versions, is no difference.
    """
    lines = []
    for member in groups:
        names = sorted({name for run in member.runs for name in run.settings} - _HARMLESS)
        different = []
        for name in names:
            having = (run.settings[name] for run in member.runs if name in run.settings)
            values = dict.fromkeys(map(value_text, having))
            if len(values) > 1:
                different.append(f"{name} ({', '.join(values)})")
        if different:
            lines.append(
                f"{member.task} {member.name}: runs with different {first_ones(different)} are in one row; "
                "--by or --where tells them apart"
            )
    return lines


def repeated_seeds(groups: Iterable[Group]) -> list[str]:
    """A line for each group in which a seed occurs more than once: its runs are not independent."""
    lines = []
    for member in groups:
        twice = sorted({seed for seed in member.seeds if member.seeds.count(seed) > 1})
        if twice:
            numbers = ", ".join(map(str, twice))
            lines.append(f"{member.task} {member.name}: more than one run of seed {numbers}")
    return lines


def missing_seeds(groups: Sequence[Group]) -> list[str]:
    """One line about the groups that lack seeds which another group of their task, limits and budget has."""
    seeds: dict[Any, set[int]] = {}
    for member in groups:
        seeds.setdefault((member.task, member.limits, member.steps), set()).update(member.seeds)
    missing = []
    for member in groups:
        lacking = sorted(seeds[(member.task, member.limits, member.steps)] - set(member.seeds))
        if lacking:
            missing.append(f"{member.task} {member.name} ({', '.join(map(str, lacking))})")
    if not missing:
        return []
    return [f"seeds that other rows have are missing from {first_ones(missing)}"]
