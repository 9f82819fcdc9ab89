"""Trains PPO-Lag on SafetyHopperVelocity-v1, whose episodes end with a fall, and counts cost per step, too.

python examples/mlp/hopper_velocity.py --steps 1000000
"""

import argparse

import numpy as np

from fsrl_ext.env import make, time_limit
from fsrl_ext.experiment import load_policy, make_config, run

TASK = "SafetyHopperVelocity-v1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20, help="that are played at the end")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    config = make_config("ppo_lag", TASK, cost_limit=25, steps=args.steps, seed=args.seed)
    done = run(config, out=args.out)

    # A limit is on the cost of an episode. A hopper that falls at once keeps any limit, so look at the length
    # beside the cost: an episode of 100 steps that costs 20 is eight times as costly per step as the limit
    # allows an episode of 1,000 steps to be.
    policy, env = load_policy(done.folder), make(TASK)
    lengths, costs, falls = [], [], 0
    for seed in range(args.episodes):
        obs, _ = env.reset(seed=seed)
        length, cost, ended = 0, 0.0, False
        while not ended:
            obs, _, terminated, truncated, info = env.step(policy.compute_action(obs))
            length, cost, ended = length + 1, cost + info["cost"], terminated or truncated
        falls += terminated
        lengths.append(length)
        costs.append(cost)
    most = time_limit(env)
    at_full_length = most * np.sum(costs) / np.sum(lengths)
    print(f"{np.mean(lengths):.0f} of {most} steps per episode, {falls} of {args.episodes} ended with a fall")
    print(f"cost of an episode {np.mean(costs):.1f}, of {most} steps {at_full_length:.1f}; limit 25")


if __name__ == "__main__":
    main()
