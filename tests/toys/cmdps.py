"""Constrained problems small enough that their optimum is known."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from toys.envs import halving_costs


class TwoStateEnv(gym.Env):
    """Has two states, between which the action decides; a wrapper's time limit ends its episodes.

    With ``x = (1 + a) / 2``, a step in state 0 earns ``x``, costs ``x^2`` and leads to state 1 with
    probability ``x``; a step in state 1 earns ``2 x``, costs ``x^2`` and leads to 0 with probability 1/2.

    :param num_costs: C; each further cost is half of the one before.
    :param reward_scale: factor of all rewards.
    :param cost_scale: factor of all costs.
    """

    def __init__(self, num_costs: int = 1, reward_scale: float = 1.0, cost_scale: float = 1.0) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.num_costs, self.state = num_costs, 0
        self.reward_scale, self.cost_scale = reward_scale, cost_scale

    def _observe(self) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[self.state]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(2))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple:
        x = (1 + float(action[0])) / 2
        reward, cost = self.reward_scale * (1 + self.state) * x, self.cost_scale * x**2
        if self.np_random.random() < (x, 0.5)[self.state]:
            self.state = 1 - self.state
        return self._observe(), reward, False, False, {"cost": halving_costs(cost, self.num_costs)}


def two_state_values(x: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the policy ``x [2]`` is worth, from the linear equations of its values.

    :return: the discounted reward of each state ``[2]``, the discounted cost of each state ``[2]``, and the
        mean reward and mean cost of a step in the long run ``[2]``.
    """
    moves = np.array([[1 - x[0], x[0]], [0.5, 0.5]])
    signals = np.stack([np.array([1.0, 2.0]) * x, x**2])
    values = np.linalg.solve(np.eye(2) - gamma * moves, signals.T).T
    visits = np.array([0.5, x[0]]) / (0.5 + x[0])
    return values[0], values[1], signals @ visits


class ChainEnv(gym.Env):
    """Walks a chain of states from a random one to its end, whatever the actions are.

    A step in state ``s`` earns ``s / 2``, costs ``1 + s``, and leads to state ``s + 1``; the step in the last
    state terminates the episode.

    :param length: number of states, which the observations tell.
    """

    def __init__(self, length: int = 2) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (length,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.state = length, 0

    def _observe(self) -> np.ndarray:
        return (np.arange(self.length) == self.state).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(self.length))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple:
        reward, cost = self.state / 2, 1.0 + self.state
        self.state += 1
        return self._observe(), reward, self.state == self.length, False, {"cost": cost}


def chain_values(length: int, gamma: float, bonus: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the actions in each state of :class:`ChainEnv`, by dynamic programming.

    :param bonus: reward for being in a state, which the value of an action has from the next state on.
    :return: the discounted reward ``[length]`` and the discounted cost ``[length]``.
    """
    reward, cost = np.zeros(length), np.zeros(length)
    for s in reversed(range(length)):
        ends = s == length - 1
        reward[s] = s / 2 + (0.0 if ends else gamma * (bonus + reward[s + 1]))
        cost[s] = 1 + s + (0.0 if ends else gamma * cost[s + 1])
    return reward, cost


def two_state_optimum(cost_per_step: float, gamma: float) -> np.ndarray:
    """Return the best policy ``x [2]`` whose mean cost per step meets a bound.

    For one price, policy iteration finds the policy that is optimal in every state for the discounted reward
    minus price times discounted cost. Bisection finds the price. A Lagrangian method ends with this policy.
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


def mean_powers(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of ``x`` and ``x^2``, where ``x = (1 + a) / 2`` for a clipped Gaussian action a.

    :param mean: ``[N]`` means of the Gaussians; likewise ``std``.
    :return: ``[N]`` each, by quadrature.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    x = (1 + np.clip(mean[:, None] + std[:, None] * points, -1, 1)) / 2
    return x @ weights / weights.sum(), x**2 @ weights / weights.sum()


def two_state_episode_cost(mean: np.ndarray, std: np.ndarray, steps: int, discount: float = 1.0) -> float:
    """Return the mean cost of an episode of `TwoStateEnv` under Gaussian actions, exactly.

    :param mean: ``[2]`` mean of the action in each state; likewise ``std``.
    :param steps: length of the episode.
    :param discount: factor of the cost per step.
    """
    x, squares = mean_powers(mean, std)
    moves = np.array([[1 - x[0], x[0]], [0.5, 0.5]])
    visits, cost = np.array([0.5, 0.5]), 0.0
    for t in range(steps):
        cost += discount**t * (visits @ squares)
        visits = visits @ moves
    return float(cost)


class TrapEpisodes(NamedTuple):
    """Episodes of a problem whose actions decide on the cost of all later steps.

    Outside the trap, a risky action leads into it with probability 0.02. Inside, every step costs 1 and ends
    the episode with probability ``escape``; no step leads back. The time limit is 100 steps.
    """

    trapped: Tensor
    """``[T, E]`` bool: whether the step starts in the trap."""
    led_to: Tensor
    """``[T, E]`` bool: whether the step leads to the trap, or stays there."""
    risky: Tensor
    """``[T, E]`` bool: the actions."""
    terminated: Tensor
    """``[T, E]`` bool: whether the step ends the episode before the time limit."""
    played: Tensor
    """``[T, E]`` bool: whether the step belongs to the episode; those after its end do not."""


TRAP_STEPS, TRAP_RISK = 100, 0.02


def trap_episodes(share: float, escape: float, episodes: int) -> TrapEpisodes:
    """Play episodes of the trap, each with a share of risky actions in every state."""
    shape = (TRAP_STEPS, episodes)
    risky = torch.rand(shape) < share
    falls, ends = risky & (torch.rand(shape) < TRAP_RISK), torch.rand(shape) < escape
    led_to = falls.long().cummax(0).values.bool()
    trapped = torch.cat([torch.zeros(1, episodes, dtype=torch.bool), led_to[:-1]])
    ended = (trapped & ends).long().cummax(0).values.bool()
    before = torch.cat([torch.zeros(1, episodes, dtype=torch.bool), ended[:-1]])
    return TrapEpisodes(trapped, led_to, risky, ended & ~before, ~before)


def trap_cost(share: float, escape: float) -> float:
    """Return the mean cost of an episode of the trap, exactly.

    :param share: probability of the risky action.
    :param escape: see :class:`TrapEpisodes`.
    """
    free, trapped, cost = 1.0, 0.0, 0.0
    for _ in range(TRAP_STEPS):
        cost += trapped
        falls = free * share * TRAP_RISK
        free, trapped = free - falls, trapped * (1 - escape) + falls
    return cost


class CueEnv(gym.Env):
    """Shows a cue, -1 or 1, before the first step alone, and pays for actions of the cue's sign after it.

    Each step but the first earns ``cue * a``, and each of these costs ``|a|``; all observations but the first
    are zero. A wrapper's time limit ends the episodes.

    The return of a memoryless policy is zero on average: after the first step its actions do not depend on
    the cue, whose two values are equally likely. No policy earns more than it costs, so the best return
    within a limit on the cost of an episode is the limit itself.
    """

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.cue, self.begins = 1.0, True

    def _observe(self) -> np.ndarray:
        return np.array([self.cue if self.begins else 0.0], np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.cue, self.begins = float(self.np_random.choice([-1.0, 1.0])), True
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple:
        a = 0.0 if self.begins else float(action[0])
        self.begins = False
        return self._observe(), self.cue * a, False, False, {"cost": abs(a)}
