"""Adapt safety-gymnasium to `CostEnv`: navigation and vision tasks, and velocity tasks."""

import copy
from collections.abc import Callable
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

from fsrl_ext.env.contract import CostEnv, SimulatorEnv
from fsrl_ext.env.display import require_display, require_offscreen_gl
from fsrl_ext.env.legacy_random import SEED_END, LegacyRandom
from fsrl_ext.env.quiet import quiet
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium
from fsrl_ext.env.safety_gymnasium.viewers import close_viewers, draw_in_own_context

# Draws of a layout per reset, before the reset fails.
_LAYOUT_TRIES = 100
# Seeds the builder, which draws its first seed from NumPy's global generator.
_BUILD_SEED = 0
_FRAMES_PER_SECOND = 30


class _TrustedDict(spaces.Dict):
    """Claims to contain every observation.

    The package asserts on every step that its observation lies in its space, which takes a fifth of the
    step's time. The collectors of this library check observations for non-finite numbers.
    """

    def contains(self, x: Any) -> bool:
        return True


class NavigationEnv(SimulatorEnv):
    """Runs a navigation or vision task: Goal, Button, Push, Circle, Run, Race or Fading.

    Rewards, costs and observations equal those of the package for the same seed and actions, bit for bit
    before the cast to float32. Where nothing is drawn, resets leave out the sky (see `LeanWorld`). Steps and
    resets run faster code (see `fsrl_ext.env.safety_gymnasium.fast`).

    :param env_id: name of the task.
    :param arguments: arguments of the package's `Builder`.
    :param max_episode_steps: the horizon.
    :param render_mode: "human", "rgb_array", "depth_array" or None.
    :param spec: see `CostEnv`.
    :param fast: False runs the package's own code for every step and reset, at its own speed.
    :param builder: builds the simulator from `arguments` and `render_mode`; None stands for the package's
        `Builder`.
    :raises RuntimeError: the task observes pictures, and the machine cannot draw.
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array", "depth_array"],
        "render_fps": _FRAMES_PER_SECOND,
    }

    def __init__(
        self,
        *,
        env_id: str,
        arguments: dict[str, Any],
        max_episode_steps: int | None,
        render_mode: str | None = None,
        spec: EnvSpec | None = None,
        fast: bool = True,
        builder: Callable[..., Any] | None = None,
    ) -> None:
        from safety_gymnasium.builder import Builder

        from fsrl_ext.env.safety_gymnasium.fast.layout import LayoutCache
        from fsrl_ext.env.safety_gymnasium.fast.task import quicken

        with LegacyRandom(_BUILD_SEED)():
            self.simulator = (builder or Builder)(**arguments, render_mode=render_mode)
        task = self.simulator.task
        if task.observe_vision:
            require_offscreen_gl(env_id)
        draw_in_own_context(task)
        # Without `fast` the world is the package's own, and leaves out only the pictures that are missing.
        self._drawn = render_mode is not None or task.observe_vision or not fast
        self._layouts = LayoutCache() if fast else None
        self._new_world()
        if fast:
            quicken(task)
            task.obs_info.obs_space_dict = _TrustedDict(task.obs_info.obs_space_dict.spaces)
        if max_episode_steps is not None:
            task.num_steps = max_episode_steps
        super().__init__(
            env_id=env_id,
            observation_space=self.simulator.observation_space,
            action_space=self.simulator.action_space,
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
            spec=spec,
        )
        self.simulator.set_seed(int(self.np_random.integers(SEED_END)))

    def _new_world(self) -> None:
        from fsrl_ext.env.safety_gymnasium.world import LeanWorld

        task = self.simulator.task
        task.world = LeanWorld(task.agent, task._obstacles, drawn=self._drawn, layouts=self._layouts)

    def _reset(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        from safety_gymnasium.utils.common_utils import ResamplingError

        if seed is not None:
            # The package's first reset and its later resets differ in the last bits. A reset with a seed
            # is always a first one.
            self._new_world()
        if seed is not None and seed >= SEED_END:
            seed = int(self.np_random.integers(SEED_END))
        if not self.simulator.task.mechanism_conf.randomize_layout:
            seed = None  # the builder seeds itself with 0 and refuses any other seed
        for _ in range(_LAYOUT_TRIES):
            try:
                return self.simulator.reset(seed=seed)
            except ResamplingError as error:
                failure: Exception = error
            except AssertionError as error:
                if "starting cost" not in str(error):
                    raise
                failure = error
            # The package's reset fails on a layout without room, or with the agent in a hazard. The next try
            # continues the same stream, so that a seed still gives the same episodes.
            seed = None
        raise RuntimeError(f"{self.env_id}: {_LAYOUT_TRIES} draws gave no usable layout") from failure

    def _separate_costs(self) -> list[str]:
        """Return the names of the costs that the package's steps report beside their sum.

        The package computes the costs of an episode's start, too. The next reset with a seed builds a new
        world, and one without continues a fresh stream, as after the construction.
        """
        self._reset(seed=None)
        names = [name.removeprefix("cost_") for name in self.simulator.cost if name != "cost_sum"]
        self._new_world()
        self.simulator.set_seed(int(self.np_random.integers(SEED_END)))
        return names

    def _step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, cost, terminated, truncated, info = self.simulator.step(action)
        info["cost"] = float(cost)
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """Return a frame of the package's camera, `[height, width, 3]` (uint8) in mode "rgb_array"."""
        return None if self.render_mode is None else self.simulator.render()

    def close(self) -> None:
        """Close the viewers; a second call does nothing."""
        close_viewers(self.simulator.task)


class VelocityEnv(SimulatorEnv):
    """Runs a velocity task: a MuJoCo robot that costs 1 on each step above a speed limit.

    :param env_id: name of the task.
    :param simulator: the package's environment, without wrappers.
    :param max_episode_steps: the horizon.
    :param render_mode: "human", "rgb_array", "depth_array" or None.
    :param spec: see `CostEnv`.
    """

    def __init__(
        self,
        *,
        env_id: str,
        simulator: gymnasium.Env,
        max_episode_steps: int | None,
        render_mode: str | None = None,
        spec: EnvSpec | None = None,
    ) -> None:
        self.simulator = simulator
        # The annotation is `Any` because the package's six-tuple is no step in Gymnasium's sense.
        self._simulate: Any = simulator.step
        self._renderer = cast(Any, simulator.unwrapped).mujoco_renderer
        draw_in_own_context(self._renderer)
        self.metadata = simulator.metadata
        super().__init__(
            env_id=env_id,
            observation_space=simulator.observation_space,
            action_space=simulator.action_space,
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
            spec=spec,
        )

    def _reset(self, seed: int | None) -> tuple[Any, dict[str, Any]]:
        return self.simulator.reset(seed=seed)

    def _step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, cost, terminated, truncated, info = self._simulate(action)
        info["cost"] = float(cost)
        return observation, reward, terminated, truncated, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one step; see `CostEnv`.

        The method is a shorter form of `CostEnv.step`, because the smaller robots' physics take only some
        ten microseconds. The package's steps need no checks: the cost is one number, the info is a
        new dictionary, and only the time limit truncates an episode.
        """
        if self._elapsed is None:
            raise self._reset_needed()
        observation, reward, terminated, _, info = self._step(action)
        self._elapsed += 1
        truncated = self._elapsed >= self._horizon
        return observation.astype(np.float32), float(reward), bool(terminated), truncated, info

    def render(self) -> Any:
        """Return a frame `[height, width, 3]` (uint8) in mode "rgb_array", and None without a mode."""
        return None if self.render_mode is None else self.simulator.render()

    def close(self) -> None:
        """Close the viewers; a second call does nothing."""
        close_viewers(self._renderer)


def make_safety_gymnasium(
    env_id: str,
    *,
    render_mode: str | None,
    max_episode_steps: int | None,
    spec: EnvSpec | None = None,
    fast: bool = True,
    **kwargs: Any,
) -> CostEnv:
    """Build a task of safety-gymnasium, or a user's own task of its `Builder`, from its registration.

    :param max_episode_steps: the horizon; None for the registered one.
    :param fast: see `NavigationEnv`; False runs the package's own simulator of a velocity task, too.
    :param kwargs: passed to the package's constructor; `config` of a navigation task changes entries of the
        registered configuration, for example `config={"sim_conf.frameskip_binom_n": 5}`.
    :raises RuntimeError: `render_mode` needs a display or OpenGL, and there is none.
    """
    if render_mode == "human":
        require_display(env_id)
    elif render_mode is not None:
        require_offscreen_gl(env_id)
    import_safety_gymnasium()
    registered = gymnasium.registry[env_id]
    arguments = copy.deepcopy(registered.kwargs)
    config = {**arguments.get("config", {}), **kwargs.pop("config", {})}
    arguments.update(kwargs)
    horizon = max_episode_steps or registered.max_episode_steps
    common: dict[str, Any] = {
        "env_id": env_id,
        "max_episode_steps": horizon,
        "render_mode": render_mode,
        "spec": spec,
    }
    if config:
        return NavigationEnv(arguments={**arguments, "config": config}, fast=fast, **common)
    assert isinstance(registered.entry_point, str)
    creator: Any = load_env_creator(registered.entry_point)
    if fast:
        from fsrl_ext.env.safety_gymnasium.fast.velocity import quick_class

        creator = quick_class(creator)
    with quiet():
        simulator: Any = creator(render_mode=render_mode, **arguments)
    return VelocityEnv(simulator=simulator, **common)
