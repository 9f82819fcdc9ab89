"""Which settings a policy of a study has on a task: those of the study, of the task and of the policy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fsrl_ext.errors import shown
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.settings import Setting, list_settings
from fsrl_ext.experiment.sweeps.values import axis

PRESET = Setting("preset", "run", str, "a bundle of settings of the policy")
"""The preset is given as a setting is, and several make an axis."""
NOT_SETTINGS = {
    "policy": "policies lists them",
    "task": "tasks lists them",
    "seed": "seeds lists them",
}


@dataclass(frozen=True)
class Entry:
    """A policy of a study with settings of its own.

    :param label: the name in the study's list of policies.
    :param policy: the algorithm.
    :param settings: by name what the study gives for this entry.
    :param tasks: by task what the study gives for this entry on the task.
    """

    label: str
    policy: str
    settings: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]

    @property
    def known(self) -> dict[str, Setting]:
        """The settings that a study can give to the policy, and the preset."""
        settings = {"preset": PRESET, **list_settings(self.policy)}
        return {name: x for name, x in settings.items() if name not in NOT_SETTINGS}


def make_entry(label: str, section: Any) -> Entry:
    """The policy of a name, with the settings of its section.

    :param section: settings by name; ``policy`` says which algorithm it is, if the label does not, and
        ``task`` has sections of settings by task.
    :raises ValueError: for an unknown policy or setting, or a section that is none.
    """
    where = f"[policy.{label}]"
    settings = dict(check_section(where, section))
    policy = settings.pop("policy", label)
    if not isinstance(policy, str):
        raise ValueError(f"{where} policy must be the name of a policy, got {shown(policy)}")
    if policy != label and label in algorithms():
        raise ValueError(f"{where} policy must be left out, because {label} is a policy itself, got {policy}")
    if policy == label and label not in algorithms() and settings:
        raise ValueError(f"{where} must name its policy, such as policy = 'cvpo', because {label} is none")
    algorithm(policy)
    tasks = {
        task: check_section(f"[policy.{label}.task.{task}]", x)
        for task, x in check_section(f"[policy.{label}.task]", settings.pop("task", {})).items()
    }
    entry = Entry(label, policy, settings, tasks)
    _check_names(where, settings, [entry])
    for task, own in tasks.items():
        _check_names(f"[policy.{label}.task.{task}]", own, [entry])
    return entry


def check_section(where: str, section: Any) -> Mapping[str, Any]:
    """The section, if it is a mapping.

    :raises ValueError: if it is something else, naming where it stands.
    """
    if not isinstance(section, Mapping):
        raise ValueError(f"{where} must hold settings by name, got {shown(section)}")
    return section


def check_shared(where: str, settings: Mapping[str, Any], entries: Iterable[Entry]) -> None:
    """Checks that all policies have the settings of a section that is not about one policy.

    :raises ValueError: for a setting that is unknown, or that some of the policies lack.
    """
    _check_names(where, settings, list(entries))


def _check_names(where: str, settings: Mapping[str, Any], entries: list[Entry]) -> None:
    for name in settings:
        lacking = [x.label for x in entries if name not in x.known]
        if not lacking:
            continue
        if name in NOT_SETTINGS:
            raise ValueError(f"{name} is no setting, got it in {where}; {NOT_SETTINGS[name]}")
        having = [x.label for x in entries if name in x.known]
        anywhere = {x: setting for policy in algorithms() for x, setting in list_settings(policy).items()}
        if name not in anywhere:
            known = {x: None for entry in entries for x in entry.known}
            raise ValueError(f"unknown setting {name!r} in {where}{did_you_mean(name, known)}")
        hint = ""
        if having:
            hint = (
                f"; give it to the policies that have it: --for {' '.join(having)} {name}=..., or in a study "
                f"file [policy.{having[0]}] {name} = ..."
            )
        verb = "has" if len(lacking) == 1 else "have"
        raise ValueError(f"{', '.join(lacking)} {verb} no setting {name}{hint}")


def settings_on_task(
    entry: Entry, task: str, shared: Mapping[str, Any], of_task: Mapping[str, Any], *, limited: bool
) -> dict[str, Any]:
    """What a study gives to a policy on a task.

    The settings of the task, and those of the policy, win over those of the study. Those of the policy on
    this very task win over all.

    :param shared: the study's settings.
    :param of_task: the task's settings.
    :param limited: whether a policy of the study has a cost limit. Those without one then have the limit
        ``inf``, once for each cost, in the place of the limits that the study and the task give.
    :raises ValueError: if both the task and the policy have a setting, and nothing says which one counts.
    """
    exact = entry.tasks.get(task, {})
    both = [x for x in of_task if x in entry.settings and x not in exact]
    if both:
        raise ValueError(
            f"{both[0]} is given for {entry.label} and for {task}; --for {entry.label} {task} {both[0]}=... "
            f"says which one counts, or in a study file [policy.{entry.label}.task.{task}]"
        )
    general = {**shared, **of_task}
    if limited and "cost_limit" in general and not algorithm(entry.policy).constrained:
        first = axis(entry.known["cost_limit"], general["cost_limit"])[0]
        general["cost_limit"] = (math.inf,) * len(first)
    return {**general, **entry.settings, **exact}


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A question about the nearest known names, to end an error with; empty if none is near."""
    near = difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
