"""Adapt bullet-safety-gym to `CostEnv`: seeded random numbers, simulated time, frames without a display."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.env.contract import SimulatorEnv
from fsrl_ext.env.display import require_display
from fsrl_ext.env.legacy_random import SEED_END, LegacyRandom
from fsrl_ext.env.quiet import quiet

# Seeds the numbers that the package draws while it loads the bodies (the yaw of a box). One fixed seed makes
# a fresh instance and an instance that was rebuilt for a seed the same world.
_BUILD_SEED = 0
# Radius of a circling obstacle's path [m], as in the package, and its speed in simulated time [rad/s].
_ORBIT_RADIUS = 0.7
_ORBIT_SPEED = 1.0
_FRAMES_PER_SECOND = 30


class BulletEnv(SimulatorEnv):
    """Runs a task of bullet-safety-gym 1.4.0.

    The package cannot be seeded: it draws from the global generators of `random` and NumPy, and moves
    obstacles by the wall clock. This class gives each instance a stream of its own, and lets circling
    obstacles follow simulated time, one radian per second, from a phase that each reset draws.

    `reset(seed=s)` also loads the bodies again, because motor targets and other remains of the last episode
    survive the package's reset. `reset()` is the package's own reset, which is faster.

    :param env_id: name of the task.
    :param layout: the arguments of the package's `EnvironmentBuilder`.
    :param max_episode_steps: the horizon.
    :param render_mode: "human" opens PyBullet's window, "rgb_array" draws on the CPU.
    :param spec: see `CostEnv`.
    :raises RuntimeError: `render_mode` is "human" and there is no display.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": _FRAMES_PER_SECOND}  # noqa: RUF012

    def __init__(
        self,
        *,
        env_id: str,
        layout: dict[str, Any],
        max_episode_steps: int | None,
        render_mode: str | None = None,
        spec: EnvSpec | None = None,
    ) -> None:
        if render_mode == "human":
            require_display(env_id)
        self._randomness = LegacyRandom(_BUILD_SEED)
        with quiet():
            from bullet_safety_gym.envs.builder import EnvironmentBuilder

            with self._randomness():
                self.simulator = EnvironmentBuilder(**layout, graphics=render_mode == "human")
        try:
            self._adapt()
            self.metadata = {**self.metadata, "render_fps": max(1, round(1 / self.simulator.dt))}
            super().__init__(
                env_id=env_id,
                observation_space=self.simulator.observation_space,
                action_space=self.simulator.action_space,
                max_episode_steps=max_episode_steps,
                render_mode=render_mode,
                spec=spec,
            )
        except BaseException:
            self.simulator.close()
            raise
        self._randomness = LegacyRandom(int(self.np_random.integers(SEED_END)))

    def _adapt(self) -> None:
        """Give the freshly loaded task this instance's random numbers, clock and bound functions."""
        _bind_functions(self.simulator.bc)
        task = self.simulator.task
        task.update_goal = self._with_own_randomness(task.update_goal)
        self._circling = [o for o in self.simulator.obstacles if o.movement == "circular"]
        for obstacle in self._circling:
            obstacle.apply_movement = self._orbit(obstacle)
        self._fresh = True

    def _with_own_randomness(self, function: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            with self._randomness():
                function()

        return call

    def _orbit(self, obstacle: Any) -> Callable[[], None]:
        def apply_movement() -> None:
            seconds = self.simulator.iteration * self.simulator.dt
            angle = _ORBIT_SPEED * seconds + obstacle.movement_offset
            path = _ORBIT_RADIUS * np.array([np.sin(angle), np.cos(angle), 0.0])
            centre = np.asarray(obstacle.init_xyz)
            self.simulator.bc.changeConstraint(obstacle.constraint, centre + path)

        return apply_movement

    def _rebuild(self) -> None:
        simulator = self.simulator
        simulator.bc.disconnect()
        self._randomness = LegacyRandom(_BUILD_SEED)
        with quiet(), self._randomness():
            simulator.bc = simulator._setup_client_and_physics()
            simulator.bullet_client_id = simulator.bc._client
            simulator.stored_state_id = -1
            simulator.iteration = 0
            simulator._setup_simulation()
        self._adapt()

    def _reset(self, seed: int | None) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            if not self._fresh:
                self._rebuild()
            # A seed in the generators' range is used as it is, so that the episode is the package's episode
            # after np.random.seed(seed).
            in_range = seed < SEED_END
            self._randomness = LegacyRandom(seed if in_range else int(self.np_random.integers(SEED_END)))
        self._fresh = False
        with self._randomness():
            for obstacle in self._circling:
                obstacle.movement_offset = np.random.uniform(0, 2 * np.pi)  # noqa: NPY002
            return self.simulator.reset()

    def _step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.simulator.step(action)

    def render(self) -> Any:
        """Return a frame `[360, 480, 3]` (uint8) in mode "rgb_array", else None; the window draws itself."""
        if self.render_mode != "rgb_array":
            return None
        return self.simulator.render(mode="rgb_array").astype(np.uint8)

    def close(self) -> None:
        """Disconnect from the physics server; a second call does nothing."""
        self.simulator.close()


def _bind_functions(client: Any) -> None:
    """Bind PyBullet's functions to the client once.

    The client's own `__getattr__` inspects and binds a function at each of some twenty calls per step.
    """
    import pybullet

    for name, function in vars(pybullet).items():
        if inspect.isbuiltin(function) and name != "disconnect":  # `disconnect` must also forget the client
            client.__dict__[name] = functools.partial(function, physicsClientId=client._client)


def make_bullet(
    env_id: str,
    *,
    render_mode: str | None,
    max_episode_steps: int | None,
    spec: EnvSpec | None = None,
    **kwargs: Any,
) -> BulletEnv:
    """Build a task of bullet-safety-gym from its registration.

    :param max_episode_steps: the horizon; None for the registered one.
    :param kwargs: entries that replace those of the registered layout (agent, task, obstacles, world).
    """
    with quiet():
        import bullet_safety_gym  # noqa: F401  (registers the ids)
    registered = gymnasium.registry[env_id]
    return BulletEnv(
        env_id=env_id,
        layout={**registered.kwargs, **kwargs},
        max_episode_steps=max_episode_steps or registered.max_episode_steps,
        render_mode=render_mode,
        spec=spec,
    )
