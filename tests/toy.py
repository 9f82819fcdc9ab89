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


class ForgetfulEnv(LineEnv):
    """As :class:`LineEnv`, but no seed repeats what it observes."""

    def _observe(self) -> np.ndarray:
        return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)


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


class TwoStateEnv(gym.Env):
    """Two states that the action decides between; episodes are cut after the wrapper's time limit.

    With ``x = (1 + a) / 2``, a step in state 0 earns ``x``, costs ``x^2`` and leads to state 1 with
    probability ``x``; a step in state 1 earns ``2 x``, costs ``x^2`` and leads to 0 with probability 1/2.

    :param num_costs: further costs are halves of the first.
    :param cost_scale: factor of all costs.
    """

    def __init__(self, num_costs: int = 1, cost_scale: float = 1.0, **kwargs: Any) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.num_costs, self.cost_scale, self.state = num_costs, cost_scale, 0
        self.render_mode = None

    def _observe(self) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[self.state]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(2))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple:
        x = (1 + float(action[0])) / 2
        reward, cost = (1 + self.state) * x, self.cost_scale * x**2
        if self.np_random.random() < (x, 0.5)[self.state]:
            self.state = 1 - self.state
        costs = cost if self.num_costs == 1 else cost * 0.5 ** np.arange(self.num_costs)
        return self._observe(), reward, False, False, {"cost": costs}


def two_state_values(x: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the policy ``x [2]``: discounted reward, discounted cost, mean reward and cost of a step."""
    moves = np.array([[1 - x[0], x[0]], [0.5, 0.5]])
    signals = np.stack([np.array([1.0, 2.0]) * x, x**2])
    values = np.linalg.solve(np.eye(2) - gamma * moves, signals.T).T
    visits = np.array([0.5, x[0]]) / (0.5 + x[0])
    return values[0], values[1], signals @ visits


def two_state_optimum(cost_per_step: float, gamma: float) -> np.ndarray:
    """The best policy ``x [2]`` within a mean cost per step, by policy iteration and bisection on the price.

    It is optimal in every state for discounted reward minus price times discounted cost, which is what a
    Lagrangian method ends with.
    """
    grid = np.linspace(0, 1, 2001)
    low, high = 0.0, 100.0
    for _ in range(60):
        price, x = (low + high) / 2, np.array([0.5, 0.5])
        for _ in range(20):
            reward, cost, _ = two_state_values(x, gamma)
            value = reward - price * cost
            q0 = grid - price * grid**2 + gamma * ((1 - grid) * value[0] + grid * value[1])
            q1 = 2 * grid - price * grid**2
            x = np.array([grid[q0.argmax()], grid[q1.argmax()]])
        low, high = (price, high) if two_state_values(x, gamma)[2][1] > cost_per_step else (low, price)
    return x
