"""Build the tasks of the library's own families as environments.

Import this module after `import_safety_gymnasium`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from gymnasium.envs.registration import EnvSpec
from safety_gymnasium.bases.base_task import BaseTask

from fsrl_ext.env.display import require_display, require_offscreen_gl
from fsrl_ext.env.meta.button_task import Stbutton
from fsrl_ext.env.meta.circle_task import Stcircle, StcircleHazard
from fsrl_ext.env.meta.family import DEFAULT_TASK_SEED, find_family
from fsrl_ext.env.meta.parameters import Parameters
from fsrl_ext.env.meta.safety_families import AGENTS
from fsrl_ext.env.safety_gymnasium import NavigationEnv
from fsrl_ext.env.safety_gymnasium.builder import TaskBuilder

_TASKS: Mapping[str, Callable[..., BaseTask]] = {
    "Stcircle": Stcircle,
    "StcircleHazard": StcircleHazard,
    "Stbutton": Stbutton,
}


class FamilyEnv(NavigationEnv):
    """Runs a task of a family; resets change the task's layout, never its parameters.

    :param task_seed: the seed that has drawn the task.
    :param task_parameters: the drawn parameters.
    :param navigation: the arguments of `NavigationEnv`.
    """

    def __init__(self, *, task_seed: int, task_parameters: Parameters, **navigation: Any) -> None:
        super().__init__(**navigation)
        self.task_seed = task_seed
        self.task_parameters = task_parameters


def make_family_env(
    env_id: str,
    *,
    task_seed: int | None,
    render_mode: str | None,
    max_episode_steps: int | None,
    spec: EnvSpec | None = None,
    fast: bool = True,
    config: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> FamilyEnv:
    """Build a task of one of the library's families.

    :param task_seed: draws the task, in [0, 2**32); None stands for `DEFAULT_TASK_SEED`.
    :param fast: see `NavigationEnv`.
    :param config: entries of safety-gymnasium's configuration, for example "sim_conf.frameskip_binom_n".
    :param kwargs: passed to safety-gymnasium's `Builder`.
    :raises ValueError: the seed is out of range.
    """
    if render_mode == "human":
        require_display(env_id)
    elif render_mode is not None:
        require_offscreen_gl(env_id)
    name, level = env_id.removesuffix("-v0")[:-1], int(env_id.removesuffix("-v0")[-1])
    family = find_family(name)
    assert family.draws is not None  # these families draw by the kind of task
    agent = next(agent for agent in AGENTS if name == f"Safety{agent}{family.draws}")
    seed = DEFAULT_TASK_SEED if task_seed is None else task_seed
    parameters = family.parameters(level, seed)
    make_task = functools.partial(_TASKS[family.draws], parameters=parameters)
    return FamilyEnv(
        task_seed=int(seed),
        task_parameters=parameters,
        env_id=env_id,
        arguments={"task_id": env_id, "config": {**(config or {}), "agent_name": agent}, **kwargs},
        builder=functools.partial(TaskBuilder, make_task=make_task),
        max_episode_steps=max_episode_steps,
        render_mode=render_mode,
        spec=spec,
        fast=fast,
    )
