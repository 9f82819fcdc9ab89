"""A family of tasks so simple that it is known what adaptation must do."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from fsrl_ext.env import register_family
from fsrl_ext.env.meta import Fixed, Uniform

T = 10
FAMILY = "MetaAim"


class AimEnv(gym.Env):
    """A bandit: reward ``1 - (a - target)^2``, cost ``(1 + a) / 2``; observations are noise.

    Nothing that is observed tells the target, so that only data can; a mean cost of ``c`` per step allows a
    mean action of ``2 c - 1``.

    :param num_costs: further costs are halves of the first.
    """

    def __init__(self, target: float, num_costs: int = 1, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.target, self.num_costs, self.render_mode = target, num_costs, render_mode

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple:
        a = float(action[0])
        cost = (1 + a) / 2
        costs = cost if self.num_costs == 1 else cost * 0.5 ** np.arange(self.num_costs)
        return self._observe(), 1 - (a - self.target) ** 2, False, False, {"cost": costs}


def build(parameters: Any, **kwargs: Any) -> AimEnv:
    return AimEnv(parameters["target"], **kwargs)


def build_two(parameters: Any, **kwargs: Any) -> AimEnv:
    return AimEnv(parameters["target"], 2, **kwargs)


LEVELS = {
    0: {"target": Fixed(0.5)},
    1: {"target": Uniform(0.2, 0.8)},
    2: {"target": Uniform(0.8, 1.0)},
}


def register() -> None:
    """``MetaAim`` with one cost, ``MetaAimTwo`` with two, ``MetaAimOnly`` with level 1 alone."""
    for name, make, levels in (
        (FAMILY, build, LEVELS),
        ("MetaAimTwo", build_two, LEVELS),
        ("MetaAimOnly", build, {1: LEVELS[1]}),
    ):
        costs = 2 if make is build_two else 1
        register_family(name, make, levels, num_costs=costs, can_terminate=False, max_episode_steps=T)
