"""A small real environment for the contract's tests: walk on a line, pay for being right of 0."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class LineEnv(gymnasium.Env):
    """State x in [-1, 1], float64; the cost is what `costs` lists for the step."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012

    def __init__(self, costs: Any = None) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.render_mode = None
        self.costs = costs

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-0.5, 0.5, 1)
        self.steps = 0
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x = np.clip(self.x + 0.1 * np.asarray(action, dtype=np.float64), -1.0, 1.0)
        self.steps += 1
        info = {}
        if self.costs is None:
            info["cost"] = float(self.x[0] > 0)
        elif (cost := self.costs[self.steps - 1]) != "none":
            info["cost"] = cost
        return self.x.copy(), float(self.x[0]), False, False, info


class TwoCostEnv(LineEnv):
    """The same walk with a second cost, for being left of 0."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, terminated, truncated, info = super().step(action)
        info["cost"] = [info["cost"], float(self.x[0] < 0)]
        return observation, reward, terminated, truncated, info


class CoinEnv(LineEnv):
    """The same walk with two actions."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(2)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return super().step(np.array([2.0 * action - 1.0]))
