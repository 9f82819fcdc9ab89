"""What a study file and the options beside it say, before it is checked against the policies."""

from __future__ import annotations

import copy
import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsrl_ext.errors import shown
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.sweeps.plan import Resources, StudyPlan
from fsrl_ext.experiment.sweeps.sections import check_section, did_you_mean
from fsrl_ext.experiment.sweeps.shipped import shipped_studies
from fsrl_ext.experiment.sweeps.study import plan_study
from fsrl_ext.experiment.sweeps.values import split_list

RESOURCES = tuple(x.name for x in dataclasses.fields(Resources))
"""The keys of a study file, and the options, that become :class:`~.plan.Resources`."""
SHORT = {"cost_limits": "cost_limit", "steps": "steps", "threads": "threads", "preset": "preset"}
"""Keys at the top of a study file that stand for settings."""
KEYS = ("policies", "tasks", "seeds", *SHORT, "out", *RESOURCES, "settings", "policy", "task")
"""All keys at the top of a study file."""


@dataclass(kw_only=True)
class Description:
    """The arguments of :func:`~.study.plan_study`, as far as they are given.

    :param policies: names; ``None`` where they are missing.
    :param tasks: environment ids; ``None`` where they are missing.
    :param seeds: as :func:`~.values.parse_seeds` takes them.
    :param settings: for all runs, by name; a list is an axis.
    :param policy: sections of settings by policy.
    :param task: sections of settings by task.
    :param out: the study's folder.
    :param resources: the given ones of :data:`RESOURCES`.
    """

    policies: list[str] | None = None
    tasks: list[str] | None = None
    seeds: Any = (0,)
    settings: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, dict[str, Any]] = field(default_factory=dict)
    task: dict[str, dict[str, Any]] = field(default_factory=dict)
    out: str = "study"
    resources: dict[str, Any] = field(default_factory=dict)

    def plan(self, command: str) -> StudyPlan:
        """The plan of the study.

        :param command: to note in the results of its runs.
        :raises ValueError: if policies or tasks are missing, or for what :func:`~.study.plan_study` refuses.
        :raises ImportError: for a suite that is not installed.
        """
        if self.policies is None or self.tasks is None:
            missing = "policies" if self.policies is None else "tasks"
            raise ValueError(f"a study needs {missing}: --{missing} NAME,NAME or a study file with {missing}")
        return plan_study(
            policies=self.policies,
            tasks=self.tasks,
            seeds=self.seeds,
            settings=self.settings,
            policy=self.policy,
            task=self.task,
            out=self.out,
            resources=Resources(**self.resources),
            command=command,
        )

    def replace_policies(self, names: list[str]) -> None:
        """Sets the policies; what is given for former ones that are none of them now goes."""
        gone = set(self.policies or ()) - set(names)
        self.policy = {name: section for name, section in self.policy.items() if name not in gone}
        self.policies = names

    def replace_tasks(self, ids: list[str]) -> None:
        """Sets the tasks; what is given for former ones that are none of them now goes."""
        gone = set(self.tasks or ()) - set(ids)
        self.task = {name: section for name, section in self.task.items() if name not in gone}
        for own in self.policy.values():
            if "task" in own:
                own["task"] = {name: section for name, section in own["task"].items() if name not in gone}
        self.tasks = ids

    def set_for_all(self, name: str, values: list[str]) -> None:
        """Gives a setting to all runs, and removes what was given for it to some policies or tasks."""
        for own in (*self.policy.values(), *self.task.values()):
            own.pop(name, None)
            for on_task in own.get("task", {}).values():
                on_task.pop(name, None)
        self.settings[name] = values

    def set_for(self, names: Sequence[str], values: Mapping[str, Any]) -> None:
        """Gives settings to policies, to tasks, or to policies on tasks.

        :param names: policies and tasks of the study; with both, the policies have the settings on the tasks.
        :raises ValueError: for another name.
        """
        policies, tasks = self.policies or [], self.tasks or []
        for name in names:
            if name not in (*policies, *tasks):
                hint = did_you_mean(name, [*policies, *tasks])
                raise ValueError(f"--for must name policies or tasks of the study, got {name!r}{hint}")
        on_tasks = [name for name in names if name in tasks]
        of_policies = [name for name in names if name in policies]
        for task in on_tasks if not of_policies else ():
            self.task.setdefault(task, {}).update(values)
        for policy in of_policies:
            section = self.policy.setdefault(policy, {})
            if not on_tasks:
                section.update(values)
            for task, own in section.get("task", {}).items():
                if not on_tasks or task in on_tasks:
                    for name in values:
                        own.pop(name, None)
            for task in on_tasks:
                section.setdefault("task", {}).setdefault(task, {}).update(values)


def read_study_file(path: str | os.PathLike[str]) -> Description:
    """Reads a study file.

    The study's folder is named as the file is, without its suffix, unless the file has ``out``.

    :param path: a file, or the name of a study that comes with the package. An existing file wins.
    :raises ValueError: if there is no such file and no such study, it is no TOML, or it has a key that a
        study file cannot have or a value of another kind.
    """
    shipped = shipped_studies()
    name, path = str(path), Path(path)
    if not path.is_file() and name in shipped:
        path = shipped[name]
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        hint = did_you_mean(name, shipped) or "; 'fsrl-ext list studies' lists those of the package"
        raise ValueError(
            f"the study file {path} {kind}{hint}; policies and tasks are given by --policies, --tasks"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
    try:
        return _description(data, path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _description(data: Mapping[str, Any], path: Path) -> Description:
    for key in data:
        if key not in KEYS:
            raise ValueError(_unknown_key(key))
    settings = dict(check_section("[settings]", data.get("settings", {})))
    for key, name in SHORT.items():
        if key in data:
            if name in settings:
                raise ValueError(f"{name} is given in [settings] and at the top of the file, as {key}")
            settings[name] = data[key]
    given = Description(
        policies=_list_of_names(data, "policies"),
        tasks=_list_of_names(data, "tasks"),
        seeds=data.get("seeds", (0,)),
        settings=settings,
        policy=_sections(data, "policy"),
        task=_sections(data, "task"),
        out=data.get("out", path.stem),
        resources={key: data[key] for key in RESOURCES if key in data},
    )
    if not isinstance(given.out, str) or not given.out:
        raise ValueError(f"out must be the name of a folder, got {shown(given.out)}")
    return given


def _unknown_key(key: str) -> str:
    if any(key in list_settings(policy) for policy in algorithms()):
        return (
            f"{key} must stand below [settings], [policy.NAME] or [task.NAME], got it at the top of the file"
        )
    return f"unknown key {key!r}{did_you_mean(key, KEYS) or '; a study file has ' + ', '.join(KEYS)}"


def _list_of_names(data: Mapping[str, Any], key: str) -> list[str] | None:
    """A list of names, or a text with commas.

    :raises ValueError: for another kind of value.
    """
    if key not in data:
        return None
    value = data[key]
    if isinstance(value, str):
        return split_list(value)
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise ValueError(f"{key} must be a list of names, got {shown(value)}")
    return value


def _sections(data: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """Copies of the tables below ``[key]``."""
    tables = check_section(f"[{key}]", data.get(key, {}))
    for name, table in tables.items():
        check_section(f"[{key}.{name}]", table)
        if key == "policy":
            for task, own in check_section(f"[policy.{name}.task]", table.get("task", {})).items():
                check_section(f"[policy.{name}.task.{task}]", own)
    return copy.deepcopy(dict(tables))
