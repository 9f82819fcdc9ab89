"""Constrained problems small enough that their optimum is known."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class LineEnv(gym.Env):
    """One state; reward is the action ``a`` in [-1, 1], cost is ``(1 + a) / 2``.

    With T steps and a limit L on the episode's cost, the best policy always takes ``a = 2 L / T - 1``.

    :param num_costs: further costs are halves of the first.
    :param nan_at: step (over all episodes) whose reward is NaN.
    """

    def __init__(self, num_costs: int = 1, nan_at: int | None = None, **kwargs: Any) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.num_costs, self.nan_at, self.steps = num_costs, nan_at, 0
        self.render_mode = None

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple:
        self.steps += 1
        a = float(action[0])
        reward = np.nan if self.steps == self.nan_at else a
        cost = (1 + a) / 2
        costs = cost if self.num_costs == 1 else cost * 0.5 ** np.arange(self.num_costs)
        return self._observe(), reward, False, False, {"cost": costs}


class EarlyEndEnv(LineEnv):
    """As :class:`LineEnv`, but an episode terminates after three steps."""

    def reset(self, **kwargs: Any) -> tuple:
        self.left = 3
        return super().reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple:
        self.left -= 1
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, self.left == 0, truncated, info


class NoCostEnv(LineEnv):
    """Breaks the contract: steps without a cost."""

    def step(self, action: np.ndarray) -> tuple:
        return *super().step(action)[:4], {}


class DiscreteEnv(LineEnv):
    """Has a discrete action space."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = gym.spaces.Discrete(2)

    def step(self, action: int) -> tuple:
        return super().step(np.array([2.0 * action - 1.0]))
