"""Build environments by name: with `make`, or several agents as one environment with `make_joint`."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.cost_names import checked_names
from fsrl_ext.env.action_repeat import ActionRepeat
from fsrl_ext.env.contract import CostEnv, CostUnit, CostWrapper
from fsrl_ext.env.discrete_optimum import DISCRETE_TASK, DiscreteOptimumEnv
from fsrl_ext.env.known_optimum import make_known_optimum
from fsrl_ext.env.suite_tasks import (
    BULLET,
    FIXED_TASKS,
    KNOWN_OPTIMUM,
    META,
    SAFETY_AGENTS,
    SAFETY_BUILDER,
    SUITE_TASKS,
    SUITES,
    TaskInfo,
    canonical_id,
)
from fsrl_ext.env.tasks import USER_TASKS, TaskImportError, is_installed, unknown_task
from fsrl_ext.env.two_costs import TWO_COSTS_TASK, TwoCostsEnv
from fsrl_ext.errors import checked


class SuiteNotInstalledError(ImportError):
    """Reports a suite that is not installed; the message has the command that installs it."""


# Ends the modes in which `render` returns the frames of all steps since its last call.
_LIST = "_list"


@checked(at_least_one=("max_episode_steps",))
def make(
    id: str,
    render_mode: str | None = None,
    *,
    max_episode_steps: int | None = None,
    task_seed: int | None = None,
    costs: str | Sequence[str] | None = None,
    **kwargs: Any,
) -> gymnasium.Env | Any:
    """Build an environment that keeps the contract of this package.

    - Steps are five-tuples, and observations are float32, in the space and in the values. `Dict` and `Tuple`
      observations of a user's environment are one vector, as `gymnasium.wrappers.FlattenObservation` makes.
    - `info["cost"]` is there on every step: a float or, for ``C > 1`` costs, float32 of shape ``[C]``.
    - `reset(seed=s)` seeds simulator and action space, and the same seed gives the same episodes.
    - An episode that reaches the time limit is `truncated`.

    A task of several agents is a `pettingzoo.ParallelEnv` with `info[agent]["cost"]`, see
    `fsrl_ext.env.agents`; `make_joint` builds the same task as one environment.

    :param id: a task that `list_tasks` has, or any id registered with `gymnasium.register`; "module:id"
        imports the module first. "module:function" calls a function that builds a `pettingzoo.ParallelEnv`.
    :param render_mode: None, "rgb_array", "human", or another mode of the environment; "rgb_array_list" and
        "depth_array_list" make `render` return the frames of all steps since its last call or the reset.
    :param max_episode_steps: a horizon other than the registered one.
    :param task_seed: draws the task of a family (`fsrl_ext.env.meta`), in [0, 2**32); None stands for 0. The
        seed of `reset` draws nothing of the task. `env.unwrapped` has the attributes `task_seed` and
        `task_parameters`, the drawn parameters.
    :param costs: names of ``C`` costs that `info["cost"]` holds, in this order, such as "hazards" and "vases"
        of SafetyPointGoal2-v0: entries of the environment's dictionary `info["cost"]`, or safety-gymnasium's
        `info["cost_hazards"]` without `"cost_"`. A prefix of several costs stands for their sum. None leaves
        safety-gymnasium's sum of all costs, and every entry of a dictionary. `env.cost_names` has the names.
    :param kwargs: passed to the environment's constructor; `fast=False` makes a navigation task of
        safety-gymnasium run the package's own code for every step and reset.
    :raises UnknownTaskError: no task has the id.
    :raises TaskImportError: the module before the colon cannot be imported.
    :raises ContractError: the function after the colon builds no `pettingzoo.ParallelEnv`.
    :raises SuiteNotInstalledError: the id belongs to a suite that is not installed.
    :raises ValueError: `max_episode_steps` or `task_seed` is out of range, `task_seed` is given for a task
        that belongs to no family, or the task lacks one of the `costs`. Where only a step tells the names of
        a user's environment, the first step raises the last of these.
    """
    names = None if costs is None else checked_names(costs)
    id = canonical_id(id)
    task = SUITE_TASKS.get(id)
    if task is None:
        if task_seed is not None:
            kwargs["task_seed"] = task_seed
        return _make_registered(id, render_mode, max_episode_steps, names, kwargs)
    if task.suite == META:
        kwargs["task_seed"] = task_seed
    elif task_seed is not None:
        raise ValueError(f"task_seed must be None for {id}, which belongs to no family, got {task_seed!r}")
    if not is_installed(task.suite):
        suite = SUITES[task.suite]
        raise SuiteNotInstalledError(f"{id} needs {suite.name}; install it: {suite.install}")
    horizon = max_episode_steps or task.horizon
    if task.suite == SAFETY_AGENTS:
        _check_one_agent(id, names)
        from fsrl_ext.env.agents.velocity import make_divided_robot

        return make_divided_robot(id, render_mode=render_mode, max_episode_steps=horizon, **kwargs)
    is_list = render_mode is not None and render_mode.endswith(_LIST)
    mode = render_mode.removesuffix(_LIST) if render_mode is not None else None
    common: dict[str, Any] = {
        "render_mode": mode,
        "max_episode_steps": horizon,
        "spec": _spec(id, mode, horizon, names, kwargs),
    }
    env = _with_costs(_make_of_suite(task, common, kwargs), names)
    return gymnasium.wrappers.RenderCollection(env) if is_list else env


def _with_costs(env: CostEnv, names: Sequence[str] | None) -> CostEnv:
    """Return the environment with the named costs; close it if it lacks one of them."""
    if names is not None:
        try:
            env.select_costs(names)
        except BaseException:
            env.close()
            raise
    return env


def _make_of_suite(task: TaskInfo, common: Mapping[str, Any], kwargs: Mapping[str, Any]) -> CostEnv:
    id = task.id
    if id == TWO_COSTS_TASK:
        return TwoCostsEnv(env_id=id, **common, **kwargs)
    if id == DISCRETE_TASK:
        return DiscreteOptimumEnv(env_id=id, **common, **kwargs)
    if task.suite == KNOWN_OPTIMUM:
        return make_known_optimum(id, **common, **kwargs)
    if task.suite == BULLET:
        from fsrl_ext.env.bullet import make_bullet

        return make_bullet(id, **common, **kwargs)
    if task.suite == META:
        from fsrl_ext.env.safety_gymnasium import import_safety_gymnasium

        import_safety_gymnasium()
        from fsrl_ext.env.meta.navigation import make_family_env

        return make_family_env(id, **common, **kwargs)
    if id in FIXED_TASKS:
        from fsrl_ext.env.safety_gymnasium import import_safety_gymnasium

        import_safety_gymnasium()
        from fsrl_ext.env.safety_gymnasium.fixed import make_fixed_env

        return make_fixed_env(id, **common, **kwargs)
    from fsrl_ext.env.safety_gymnasium import make_safety_gymnasium

    return make_safety_gymnasium(id, **common, **kwargs)


@checked(at_least_one=("action_repeat",))
def make_joint(
    id: str,
    render_mode: str | None = None,
    *,
    cost_unit: CostUnit = "team",
    action_repeat: int = 1,
    **kwargs: Any,
) -> gymnasium.Env:
    """Build a task as one environment, whose observations and actions are those of all of its agents.

    A task of one agent is the environment of `make`. A task of several agents is a
    `fsrl_ext.env.agents.TeamEnv`.

    :param id: as for `make`; the other arguments are those of `make`, too.
    :param cost_unit: whether a task of several agents has one cost, the team's, or one cost for each agent;
        without effect on a task of one agent.
    :param action_repeat: the number of steps that an action lasts for; above 1 the environment is an
        `ActionRepeat`, whose rewards and costs are sums over these steps.
    :raises ValueError: an agent's observations or actions are no vectors of numbers.
    """
    env = _joint(id, render_mode, cost_unit, kwargs)
    return env if action_repeat == 1 else ActionRepeat(env, action_repeat)


def _joint(id: str, render_mode: str | None, cost_unit: CostUnit, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    env = make(id, render_mode, **kwargs)
    if isinstance(env, gymnasium.Env):
        return env
    from fsrl_ext.env.agents import TeamEnv

    spec = _spec(
        id, render_mode, env.max_episode_steps, None, {"cost_unit": cost_unit, **kwargs}, "make_joint"
    )
    return TeamEnv(env, cost_unit=cost_unit, spec=spec)


def _make_registered(
    id: str,
    render_mode: str | None,
    max_episode_steps: int | None,
    costs: tuple[str, ...] | None,
    kwargs: Mapping[str, Any],
) -> gymnasium.Env:
    module, _, name = id.rpartition(":")
    if module:
        _import_own(module, id)
    if name not in gymnasium.registry:
        function = getattr(sys.modules[module], name, None) if module else None
        if not callable(function):
            raise unknown_task(name)
        _check_one_agent(id, costs)
        from fsrl_ext.env.agents.contract import make_parallel

        return make_parallel(id, function, render_mode, max_episode_steps, kwargs)
    if gymnasium.registry[name].entry_point == SAFETY_BUILDER:
        return _make_own_navigation(name, render_mode, max_episode_steps, costs, kwargs)
    arguments = dict(kwargs)
    if render_mode is not None:  # some classes lack the argument
        arguments["render_mode"] = render_mode
    # The passive checker costs time on every step, and CostWrapper checks what matters here.
    env = gymnasium.make(name, max_episode_steps=max_episode_steps, disable_env_checker=True, **arguments)
    task = USER_TASKS.get(name)
    num_costs = task.num_costs if task and costs is None else None
    return CostWrapper(env, env_id=name, num_costs=num_costs, costs=costs)


def _check_one_agent(id: str, costs: Sequence[str] | None) -> None:
    if costs is not None:
        raise ValueError(f"costs must be None for {id}, which has several agents, got {', '.join(costs)}")


def _import_own(module: str, id: str) -> None:
    """Import the module that registers a user's task.

    :raises ValueError: the name is that of no module.
    :raises TaskImportError: the module is not there, or raises an error of its own; the message has it.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"{id!r} must begin with the full name of a module, such as 'mytasks:Cart-v0', got {module!r}"
        )
    try:
        importlib.import_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        where = "; it must be in this folder, or in a package that is installed" if missing else ""
        raise TaskImportError(f"the module of {id!r} cannot be imported ({reason}){where}") from error


def _make_own_navigation(
    id: str,
    render_mode: str | None,
    max_episode_steps: int | None,
    costs: tuple[str, ...] | None,
    kwargs: Mapping[str, Any],
) -> gymnasium.Env:
    """Build a user's own task of safety-gymnasium, whose steps are six-tuples there."""
    from fsrl_ext.env.safety_gymnasium import make_safety_gymnasium

    horizon = max_episode_steps or gymnasium.registry[id].max_episode_steps
    spec = _spec(id, render_mode, horizon, costs, kwargs)
    env = make_safety_gymnasium(id, render_mode=render_mode, max_episode_steps=horizon, spec=spec, **kwargs)
    return _with_costs(env, costs)


def _spec(
    id: str,
    render_mode: str | None,
    horizon: int | None,
    costs: tuple[str, ...] | None,
    kwargs: Mapping[str, Any],
    function: str = "make",
) -> EnvSpec:
    named = {} if costs is None else {"costs": costs}
    return EnvSpec(
        id=id,
        entry_point=f"fsrl_ext.env.registry:{function}",
        max_episode_steps=horizon,
        order_enforce=False,
        disable_env_checker=True,
        kwargs={"id": id, "render_mode": render_mode, "max_episode_steps": horizon, **named, **kwargs},
    )


def _register_fixed_tasks() -> None:
    """Let `gymnasium.make` build the tasks of the CVPO paper, as this package's `make` does."""
    for id in FIXED_TASKS:
        gymnasium.register(
            id,
            entry_point="fsrl_ext.env.registry:make",
            max_episode_steps=SUITE_TASKS[id].horizon,
            order_enforce=False,
            disable_env_checker=True,
            kwargs={"id": id},
        )


_register_fixed_tasks()
