"""From the description of a study to its plan: the product of policies, tasks, values and seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fsrl_ext.errors import checked, shown
from fsrl_ext.experiment.defaults import TUNED
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.settings import make_config
from fsrl_ext.experiment.sweeps.names import own_settings, run_name
from fsrl_ext.experiment.sweeps.plan import PlannedRun, Resources, StudyPlan
from fsrl_ext.experiment.sweeps.readiness import check_folder, check_runs
from fsrl_ext.experiment.sweeps.sections import (
    Entry,
    check_section,
    check_shared,
    did_you_mean,
    make_entry,
    settings_on_task,
)
from fsrl_ext.experiment.sweeps.values import MAX_RUNS, axis, parse_seeds, split_list


@checked(own=("policies", "tasks", "seeds"))
def plan_study(
    *,
    policies: str | Sequence[str],
    tasks: str | Sequence[str],
    seeds: int | str | Sequence[int | str] = (0,),
    settings: Mapping[str, Any] | None = None,
    policy: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] = "study",
    resources: Resources | None = None,
    command: str | None = None,
) -> StudyPlan:
    """All runs of a study, checked: policies x tasks x values of settings x seeds.

    Each setting of ``fsrl-ext train`` may be given, the cost limit like any other. A list has several values
    and is an axis of the study; a tuple, or a text such as ``"128/128"``, is one value of several numbers.

    .. code-block:: python

        plan = plan_study(
            policies=["cvpo", "sac_lag"],
            tasks=["SafetyCarCircle-v0"],
            seeds="0-4",
            settings={"cost_limit": [5, 10, 25], "steps": 300_000},
            policy={"cvpo": {"kl_bound": [0.05, 0.1]}},
            out="study",
        )

    :param policies: names of policies, and of sections of ``policy`` that say which policy they are about.
    :param tasks: environment ids; names of families for meta-learners.
    :param seeds: numbers, or a text such as ``"0-4"`` or ``"0,2,5"``.
    :param settings: for all runs, by name; ``preset`` is one of them.
    :param policy: settings by policy, which win over ``settings``. ``{"slow": {"policy": "cvpo", ...}}`` is
        one more policy of the study, by the name ``slow``, and ``{"cvpo": {"task": {id: {...}}}}`` holds what
        is given for a policy on a task.
    :param task: settings by task, which win over ``settings``.
    :param out: the study's folder.
    :param resources: what the runs may use; one core for each run if not given.
    :param command: the command line to note in the runs' results; the call of this function if not given.
    :return: the plan; nothing is written.
    :raises ValueError: for names and values that cannot be used, a setting that a policy lacks, repeated or
        missing values, or two runs with the same settings.
    :raises ImportError: for a suite that is not installed.
    """
    given = {k: v for k, v in locals().items() if v is not None and k not in ("resources", "command")}
    resources = resources or Resources()
    labels, ids = _names("policies", policies), _names("tasks", tasks)
    seed_list = parse_seeds(seeds)
    policy, task = policy or {}, task or {}
    _check_places("policy", policy, labels)
    _check_places("task", task, ids)
    entries = [make_entry(label, policy.get(label, {})) for label in labels]
    for entry in entries:
        _check_places(f"policy.{entry.label}.task", entry.tasks, ids)
    shared = check_section("[settings]", settings or {})
    check_shared("[settings]", shared, entries)
    for name, section in task.items():
        check_shared(f"[task.{name}]", check_section(f"[task.{name}]", section), entries)

    limited = any(algorithm(entry.policy).constrained for entry in entries)
    grids = []
    for entry, name in itertools.product(entries, ids):
        values = settings_on_task(entry, name, shared, task.get(name, {}), limited=limited)
        grids.append((entry, name, _axes(entry, values)))
    count = len(seed_list) * sum(math.prod(map(len, axes.values())) for _, _, axes in grids)
    if count > MAX_RUNS:
        raise ValueError(f"a study must have at most {MAX_RUNS:,} runs, got {count:,}")
    folder = Path(out)
    check_folder(folder)
    runs = [run for grid in grids for run in _runs(*grid, seed_list)]
    _check_different(runs, first_seed=seed_list[0])
    check_runs([run.config for run in runs[:: len(seed_list)]], on_this_machine=resources.address is None)
    command = command or f"plan_study({', '.join(f'{k}={v!r}' for k, v in given.items())})"
    return StudyPlan(folder=folder, runs=tuple(runs), resources=resources, command=command)


def _names(what: str, given: str | Sequence[str]) -> list[str]:
    """Names in a list, or in a text with commas.

    :raises ValueError: if there are none, one of them is no text, or one is there twice.
    """
    if not isinstance(given, str | Sequence) or not all(isinstance(x, str) for x in given):
        raise ValueError(f"{what} must be names, got {shown(given)}")
    names = split_list(given) if isinstance(given, str) else list(given)
    if not names or not all(names):
        raise ValueError(f"{what} must be one name or more, got {shown(given)}")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ValueError(f"{what} must be different, got {twice} twice")
    return names


def _check_places(what: str, sections: Mapping[str, Any], names: Sequence[str]) -> None:
    """Checks that sections are about policies or tasks of the study."""
    for name in check_section(f"[{what}]", sections):
        if name not in names:
            hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
            raise ValueError(f"[{what}.{name}] must be about a {what.split('.')[-1]} of the study{hint}")


def _axes(entry: Entry, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each setting that is given, in the order of the policy's settings."""
    return {name: axis(setting, given[name]) for name, setting in entry.known.items() if name in given}


def _runs(
    entry: Entry, task: str, axes: Mapping[str, list[Any]], seeds: Sequence[int]
) -> Iterator[PlannedRun]:
    """The runs of one policy on one task."""
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        preset = values.pop("preset", TUNED)
        try:
            config = make_config(entry.policy, task, preset=preset, seed=seeds[0], **values)
        except ValueError as error:
            raise ValueError(f"{entry.label} on {task}: {error}") from error
        if config.training.uses_ray:
            raise ValueError(
                f"worker_type must be process in a sweep, whose runs are what Ray shares out, got 'ray' for "
                f"{entry.label} on {task}"
            )
        own = own_settings(config, preset)
        for seed in seeds:
            one = config if seed == config.seed else dataclasses.replace(config, seed=seed)
            name = run_name(one, entry.label, own)
            yield PlannedRun(name=name, config=one, label=entry.label, own_settings=own)


def _check_different(runs: Sequence[PlannedRun], *, first_seed: int) -> None:
    """Checks that no two runs have the same settings, or the same name.

    :param first_seed: of the study; runs of other seeds have the settings of those of the first.
    """
    configs: dict[str, PlannedRun] = {}
    names: dict[str, PlannedRun] = {}
    for run in runs:
        same = names.setdefault(run.name.lower(), run)  # some file systems do not tell cases apart
        if same is not run:
            raise ValueError(f"two runs must have different names, got {run.name} twice")
        if run.config.seed != first_seed:
            continue
        same = configs.setdefault(json.dumps(run.config.as_dict(), sort_keys=True), run)
        if same is not run:
            raise ValueError(f"two runs must differ, and {same.name} and {run.name} have the same settings")
