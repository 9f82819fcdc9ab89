"""Compares a trained policy's cost critic with measured costs, for deterministic and for sampled actions.

    python benchmarks/cost_calibration.py RUN_OR_CHECKPOINT [--episodes 20]

The script plays the policy on the seeds of final evaluations and compares, over the same states and actions,
Q_c with the discounted cost that followed. It leaves out states so late in an episode that more than 1% of
the discounted sum lies beyond the time limit.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from tianshou.data import Batch
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.env import make
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.report import text_table
from fsrl_ext.report.files import write_json
from fsrl_ext.trainer import seed_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy, config, spec = load_experiment(options.run)
    gamma = config.policy_config.gamma
    env = make(config.task)
    rows, numbers = [], {}
    for name, stochastic in (("stochastic", True), ("deterministic", False)):
        episodes = [play(policy, env, s, stochastic) for s in seed_range("final", options.episodes)]
        late = math.ceil(math.log(0.01) / math.log(gamma))
        kept = [(q[:-late], discounted(c, gamma)[:-late]) for q, c, _ in episodes]
        predicted, measured = (np.concatenate(x) for x in zip(*kept, strict=True))
        costs = np.array([c.sum() for _, c, _ in episodes])
        returns = np.array([r for _, _, r in episodes])
        numbers[name] = {
            "return": returns.mean(),
            "episode_cost": costs.mean(),
            "q_cost": predicted.mean(),
            "measured_discounted_cost": measured.mean(),
            "ratio": predicted.mean() / max(measured.mean(), 1e-9),
        }
        rows.append([name, *(f"{x:.3f}" for x in numbers[name].values())])
    print(text_table(["actions", "return", "episode cost", "mean Q_c", "measured", "ratio"], rows))
    threshold = float(policy.cost_threshold[0])
    print(f"threshold {threshold:.3f} for cost limit {config.cost_limit[0]:g}; T = {spec.max_episode_steps}")
    if options.json:
        write_json(options.json, numbers, indent=1)


def play(policy, env, seed, stochastic):
    """Plays one episode; returns Q_c ``[T]``, cost ``[T]`` and the return."""
    obs, _ = env.reset(seed=seed)
    q_costs, costs, total, done = [], [], 0.0, False
    with torch.no_grad(), policy_within_training_step(policy, enabled=stochastic):
        while not done:
            act = policy(Batch(obs=obs[None], info={})).act
            q_costs.append(
                float(policy._reduce(policy.critic(torch.as_tensor(obs[None]), act.clamp(-1, 1)))[1])
            )
            obs, reward, terminated, truncated, info = env.step(policy.map_action(act)[0])
            costs.append(float(info["cost"]))
            total += reward
            done = terminated or truncated
    return np.array(q_costs), np.array(costs), total


def discounted(cost: np.ndarray, gamma: float) -> np.ndarray:
    """Returns ``sum_k gamma^k c_{t+k}`` for every t."""
    sums = np.zeros_like(cost)
    running = 0.0
    for t in range(len(cost) - 1, -1, -1):
        running = cost[t] + gamma * running
        sums[t] = running
    return sums


if __name__ == "__main__":
    main()
