"""Evaluates peers that cannot import fsrl_ext by ``docs/evaluation.md``, with the same seeds and rule.

The module takes policies of Tianshou 0.5 (``policy(batch).act``, ``map_action``) on tasks of
bullet-safety-gym. With the same float32 actions, the episode of a seed equals the episode that
``fsrl_ext.env.make(task)`` plays with that seed.
"""

from __future__ import annotations

import math
import random
from typing import Any

import gymnasium
import numpy as np
import torch
from tianshou.data import Batch

SELECTION_SEEDS = range(1_000_000, 1_000_010)
FINAL_SEEDS = range(2_000_000, 2_000_050)


class Evaluation:
    """Returns and costs ``[episodes]``; compared by the rule of ``docs/evaluation.md``."""

    def __init__(self, env_step: int, returns: np.ndarray, costs: np.ndarray, limit: float) -> None:
        self.env_step, self.returns, self.costs, self.limit = env_step, returns, costs, limit
        self.violation = costs.mean() + standard_error(costs) - limit
        self.feasible = bool(self.violation <= 0)

    def is_better_than(self, other: Evaluation | None) -> bool:
        if other is None or self.feasible != other.feasible:
            return other is None or self.feasible
        if self.feasible:
            return bool(self.returns.mean() > other.returns.mean())
        return bool(self.violation < other.violation)

    def summary(self) -> dict[str, Any]:
        return {
            "env_step": self.env_step,
            "episodes": len(self.returns),
            "return_mean": self.returns.mean(),
            "return_stderr": standard_error(self.returns),
            "cost_mean": self.costs.mean(),
            "cost_stderr": standard_error(self.costs),
            "feasible": self.feasible,
            "share_above_limit": (self.costs > self.limit).mean(),
        }


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def evaluate(policy: Any, task: str, limit: float, env_step: int, seeds: range) -> Evaluation:
    """Plays deterministic episodes; afterwards the training's random streams and mode are as before."""
    saved = random.getstate(), np.random.get_state()  # noqa: NPY002
    policy.eval()
    returns, costs = zip(*(play(policy, task, seed) for seed in seeds), strict=True)
    policy.train()
    random.setstate(saved[0])
    np.random.set_state(saved[1])  # noqa: NPY002
    return Evaluation(env_step, np.array(returns), np.array(costs), limit)


def play(policy: Any, task: str, seed: int) -> tuple[float, float]:
    """Returns return and cost of the episode of a seed; bullet draws from the global streams."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    env = gymnasium.make(task)  # a fresh one, because leftovers of an episode survive the package's reset
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    obs, _ = env.reset()
    total, cost, done = 0.0, 0.0, False
    while not done:
        with torch.no_grad():
            act = policy(Batch(obs=obs[None], info={})).act.numpy()
        obs, reward, terminated, truncated, info = env.step(policy.map_action(act)[0])
        total, cost, done = total + reward, cost + info["cost"], terminated or truncated
    env.close()
    return total, cost
