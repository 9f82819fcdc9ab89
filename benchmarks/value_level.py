"""Measures what a missing level of the critic does to advantages, on the task with discrete actions.

    python benchmarks/value_level.py

The best policy of ``KnownOptimumDiscrete-v0`` within the limit 3, mixed with random actions, plays 200
episodes. Their generalised advantages (gamma 0.99, lambda 0.95) are computed with exact values and with
shares of them: a share of 0 is a critic that has learnt nothing. The table shows the standard deviations of
the advantages of reward and cost, and in their ratio the multiplier of the optimum, whose price in reward
per cost comes from two linear programs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fsrl_ext.env import make
from fsrl_ext.env.discrete_optimum import DISCRETE_TASK

GAMMA, DECAY = 0.99, 0.95
LIMIT, EPISODES = 3.0, 200


def main() -> None:
    env: Any = make(DISCRETE_TASK).unwrapped
    best, _ = env.optimum(LIMIT)
    price = (env.optimum(LIMIT + 0.05)[1] - env.optimum(LIMIT - 0.05)[1]) / 0.1
    print(f"multiplier of the optimum: {price:.2f} in reward per cost\n")
    print("| random actions | share of the values | deviation: reward | cost | multiplier |")
    print("|---:|---:|---:|---:|---:|")
    rng = np.random.default_rng(0)
    for random in (0.5, 0.1, 0.02):
        policy = (1.0 - random) * best + random / best.shape[1]
        moves = np.einsum("sa,san->sn", policy, env.moves)
        states, signals = play(env, policy, rng)
        values = [
            np.linalg.solve(np.eye(len(moves)) - GAMMA * moves, (policy * x).sum(1))
            for x in (env.rewards, env.costs)
        ]
        for share in (1.0, 0.5, 0.0):
            pairs = zip(signals, values, strict=True)
            reward, cost = (advantages(x, share * v[states]).std() for x, v in pairs)
            print(f"| {random:g} | {share:g} | {reward:.2f} | {cost:.2f} | {price * cost / reward:.2f} |")


def play(env: Any, policy: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns states ``[T + 1, E]`` of episodes, and their rewards and costs ``[T, E]``."""
    states = np.zeros((env.horizon + 1, EPISODES), int)
    actions = np.zeros((env.horizon, EPISODES), int)
    for t in range(env.horizon):
        actions[t] = drawn(policy[states[t]], rng)
        states[t + 1] = drawn(env.moves[states[t], actions[t]], rng)
    return states, [x[states[:-1], actions] for x in (env.rewards, env.costs)]


def drawn(probs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws from the distributions ``[E, N]``, ``[E]``."""
    return (rng.random((len(probs), 1)) > probs.cumsum(1)[:, :-1]).sum(1)


def advantages(signal: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns generalised advantages ``[T, E]``, which bootstrap at the time limit."""
    errors = signal + GAMMA * values[1:] - values[:-1]
    result, ahead = np.zeros_like(errors), np.zeros(errors.shape[1])
    for t in reversed(range(len(errors))):
        result[t] = ahead = errors[t] + GAMMA * DECAY * ahead
    return result


if __name__ == "__main__":
    main()
