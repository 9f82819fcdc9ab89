"""Configs of the runs: what all share, what differs, versions and commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fsrl_ext.report.page.details import Origin
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import ABSENT, Group, first_ones, value_text

_PLACES = {"seed", "task", "cost_limit", "steps"}
"""Settings that the other tables show for each row already."""


def common_settings(runs: Sequence[StudyRun]) -> dict[str, str]:
    """The settings that have one value in all runs, as texts in the order of their names."""
    values = _values(runs)
    return {name: value_text(same[0]) for name, same in values.items() if len(same) == 1}


def different_settings(groups: Sequence[Group]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Tables of the settings that not all runs share: a row for each, a column for each kind of groups.

    Groups that differ in task, limits and steps alone share a column. A cell with several values says that
    runs of one column differ in the setting.

    :return: the header, the rows of the settings with several values, and those of the settings with one
        value that some runs do not have.
    """
    runs = [run for member in groups for run in member.runs]
    values = _values(runs)
    names = [name for name, several in values.items() if len(several) > 1 and name not in _PLACES]
    columns: dict[tuple[str, ...], list[Group]] = {}
    for member in groups:
        cells = tuple(_cell(member.runs, name) for name in names)
        columns.setdefault(cells, []).append(member)
    header = ["setting", *(_column_name(members, groups) for members in columns.values())]
    differing: list[list[str]] = []
    partial: list[list[str]] = []
    for i, name in enumerate(names):
        there = [x for x in values[name] if x is not ABSENT]
        (differing if len(there) > 1 else partial).append([name, *(cells[i] for cells in columns)])
    return header, differing, partial


def _values(runs: Sequence[StudyRun]) -> dict[str, list[Any]]:
    """The different values of each setting; :data:`ABSENT` stands for runs without it."""
    names = sorted({name for run in runs for name in run.settings})
    values: dict[str, list[Any]] = {}
    for name in names:
        texts = {value_text(run.settings.get(name, ABSENT)): run.settings.get(name, ABSENT) for run in runs}
        values[name] = list(texts.values())
    return values


def _cell(runs: Sequence[StudyRun], name: str) -> str:
    return ", ".join(dict.fromkeys(value_text(run.settings.get(name, ABSENT)) for run in runs))


def _column_name(members: Sequence[Group], groups: Sequence[Group]) -> str:
    """The names of the groups of a column; with their tasks, where the names stand in other columns, too."""
    names = list(dict.fromkeys(member.name for member in members))
    alone = sum(member.name in names for member in groups) == len(members)
    text = first_ones(names, 3)
    if alone:
        return text
    return f"{text} on {first_ones(list(dict.fromkeys(member.task for member in members)), 3)}"


def versions_table(origins: Sequence[Origin]) -> list[list[str]]:
    """A row for each package: its name and its versions, with how many runs have each where they differ."""
    counts: dict[str, dict[str, int]] = {}
    for origin in origins:
        for name, version in origin.versions.items():
            of_name = counts.setdefault(name, {})
            of_name[version] = of_name.get(version, 0) + 1
    rows = []
    for name, of_name in counts.items():
        if len(of_name) == 1 and sum(of_name.values()) == len(origins):
            rows.append([name, next(iter(of_name))])
        else:
            rows.append([name, ", ".join(f"{version} ({n} runs)" for version, n in of_name.items())])
    return rows
