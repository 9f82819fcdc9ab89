"""Defaults of tasks, which hold for all algorithms, and the order in which an algorithm's own join them.

A row applies to every task of a suite whose id matches its pattern; later rows win. Discount factors and
n-step lengths are those that FSRL's published CVPO results used, limits are those of the published
benchmarks. What an algorithm adds stands in its row of the registry (``fsrl_ext/experiment/algorithms/``).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from fsrl_ext.env.suite_tasks import SUITE_TASKS, USER, canonical_id
from fsrl_ext.experiment.registry import TaskDefaults, algorithm

TASK_DEFAULTS: tuple[TaskDefaults, ...] = (
    ("*", "*", {"cost_limit": (10.0,)}),
    ("safety-gymnasium", "*", {"cost_limit": (25.0,), "gamma": 0.99, "estimation_step": 3}),
    ("meta", "*", {"cost_limit": (25.0,), "gamma": 0.99, "estimation_step": 3}),
    # Costs with a long tail: the best of 50 means of 10 episodes is mostly luck (docs/notes/navigation.md)
    (
        "safety-gymnasium",
        "*[0-2]-v0",
        {"selections": 25, "selection_episodes": 40, "selection_min_episodes": 10},
    ),
    ("safety-gymnasium", "*Fixed-v0", {"cost_limit": (10.0,)}),
    ("safety-gymnasium", "*Velocity-v1", {"gamma": 0.98, "estimation_step": 2}),
    ("safety-gymnasium-agents", "*", {"cost_limit": (25.0,), "gamma": 0.98, "estimation_step": 2}),
    ("known-optimum", "*", {"cost_limit": (3.0,)}),
    ("known-optimum", "*LargeCosts-v0", {"cost_limit": (300.0,)}),
    ("known-optimum", "*SmallCosts-v0", {"cost_limit": (0.03,)}),
    ("known-optimum", "*TwoCosts-v0", {"cost_limit": (3.0, 6.0)}),
)

TUNED = "tuned"
"""The preset of every algorithm: its defaults."""


def default_settings(policy: str, task: str, known: Sequence[str]) -> dict[str, Any]:
    """The settings of an algorithm on a task, where they differ from the defaults of the config classes.

    :param task: the environment id that the policy is judged in; an unknown one gets the rows for all tasks.
    :param known: the algorithm's settings; what it does not have is left out of the rows for all algorithms.
    """
    settings = dict(algorithm(policy).defaults)
    for suite_pattern, pattern, row in task_rows(policy, known):
        if matches(task, suite_pattern, pattern):
            settings |= row
    return settings


def task_rows(policy: str, known: Sequence[str]) -> list[TaskDefaults]:
    """All rows of task defaults of an algorithm, in the order in which later ones win.

    :param known: the algorithm's settings; what it does not have is left out of the rows for all algorithms.
    """
    for_all = [
        (suite, pattern, {name: value for name, value in row.items() if name in known})
        for suite, pattern, row in TASK_DEFAULTS
    ]
    return [*for_all, *algorithm(policy).task_defaults]


def preset_settings(policy: str, preset: str) -> Mapping[str, Any]:
    """The settings of a preset.

    :raises ValueError: if the algorithm has no preset of that name.
    """
    presets: dict[str, Mapping[str, Any]] = {TUNED: {}, **algorithm(policy).presets}
    if preset not in presets:
        near = difflib.get_close_matches(preset, presets, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"preset must be one of {', '.join(presets)}, got {preset!r}{hint}")
    return presets[preset]


def matches(task: str, suite_pattern: str, pattern: str) -> bool:
    """Whether a row of task defaults applies to an environment id."""
    name = canonical_id(task.rpartition(":")[2])
    return fnmatchcase(suite_of(task), suite_pattern) and fnmatchcase(name, pattern)


def suite_of(task: str) -> str:
    """The suite of an environment id; ``user`` for one that neither a suite nor a family has."""
    name = canonical_id(task.rpartition(":")[2])
    return SUITE_TASKS[name].suite if name in SUITE_TASKS else USER
