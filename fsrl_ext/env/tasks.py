"""What is known of tasks: users' own ones, the list of all, and when their episodes end."""

import dataclasses
import difflib
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import gymnasium

from fsrl_ext.env.action_repeat import ActionRepeat
from fsrl_ext.env.suite_tasks import SUITE_TASKS, SUITES, USER, TaskInfo, canonical_id
from fsrl_ext.errors import checked

USER_TASKS: dict[str, TaskInfo] = {}
"""The tasks of `register_task`, by id."""

# Arguments of `make` that leave the answer of `can_terminate` as the table has it.
_HARMLESS_ARGUMENTS = {
    *("id", "render_mode", "max_episode_steps", "task_seed", "costs"),
    *("width", "height", "camera_id", "camera_name", "cost_unit"),
}


class UnknownTaskError(ValueError):
    """Reports an id that no task has; the message names the nearest ids."""


class TaskImportError(ImportError):
    """Reports that the module of a task "module:id" cannot be imported; the message has the reason."""


def unknown_task(id: str) -> UnknownTaskError:
    """Return the error about an id that no task has."""
    known = [*SUITE_TASKS, *USER_TASKS, *gymnasium.registry]
    near = difflib.get_close_matches(id, dict.fromkeys(known))
    hint = f"did you mean {', '.join(near)}?" if near else "see fsrl_ext.env.list_tasks()"
    return UnknownTaskError(f"unknown task {id!r}; {hint}")


def is_installed(suite: str) -> bool:
    """Tell whether the packages of a suite are there, without importing them."""
    return all(importlib.util.find_spec(module) for module in SUITES[suite].modules)


@checked(at_least_one=("num_costs", "max_episode_steps"))
def register_task(
    id: str,
    *,
    entry_point: str | Callable[..., gymnasium.Env],
    num_costs: int | None = None,
    can_terminate: bool | None = None,
    max_episode_steps: int | None = None,
    **registration: Any,
) -> None:
    """Register an environment whose steps carry `info["cost"]`.

    :param id: a new id of Gymnasium's form, "Name-v0".
    :param entry_point: the environment's class, a function that builds it, or "module:Class".
    :param num_costs: the number of costs ``C`` on each step; None takes it from the first step.
    :param can_terminate: whether an episode can end before its time limit; None if unknown.
    :param max_episode_steps: the time limit; None for none.
    :param registration: further arguments of `gymnasium.register`, for example `kwargs`.
    :raises ValueError: the id belongs to a suite, or `num_costs` is below 1.
    """
    if id in SUITE_TASKS:
        raise ValueError(f"id must be new, got {id!r}, which belongs to {SUITE_TASKS[id].suite}")
    gymnasium.register(id, entry_point=entry_point, max_episode_steps=max_episode_steps, **registration)
    USER_TASKS[id] = TaskInfo(
        id=id,
        suite=USER,
        horizon=max_episode_steps,
        can_terminate=can_terminate,
        num_costs=num_costs,
    )


def list_tasks() -> list[TaskInfo]:
    """Return the tasks of all suites, installed or not, and then those of `register_task`."""
    installed = {name: is_installed(name) for name in SUITES}
    suites = [dataclasses.replace(task, installed=installed[task.suite]) for task in SUITE_TASKS.values()]
    return suites + list(USER_TASKS.values())


@checked()
def time_limit(env: gymnasium.Env) -> int | None:
    """Return the number of calls of `step` after which an episode of `env` is truncated; None for no limit.

    With an `ActionRepeat` around it, an environment is called less often than its `spec` says.
    """
    limit = env.spec.max_episode_steps if env.spec is not None else None
    while limit is not None and isinstance(env, gymnasium.Wrapper):
        if isinstance(env, ActionRepeat):
            limit = math.ceil(limit / env.repeat)
        env = env.env
    return limit


@checked()
def can_terminate(env: str | gymnasium.Env) -> bool | None:
    """Tell whether an episode can end before its time limit; None if that is unknown.

    :param env: an id, or an environment that has an id in its `spec`. The answer for an environment is None
        where it was built with arguments other than `task_seed` and those of drawing, because such arguments
        may change the task.
    """
    if isinstance(env, str):
        id = canonical_id(env.rpartition(":")[2])
    elif env.spec is not None and _HARMLESS_ARGUMENTS.issuperset(env.spec.kwargs):
        id = env.spec.id
    else:
        return None
    task = SUITE_TASKS.get(id) or USER_TASKS.get(id)
    return task.can_terminate if task else None
