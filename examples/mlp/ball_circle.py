"""Trains CVPO on SafetyBallCircle-v0 in three lines, shows the result and plays the saved policy.

python examples/mlp/ball_circle.py --steps 200000
"""

import argparse

from fsrl_ext.env import make
from fsrl_ext.experiment import load_policy, make_config, run
from fsrl_ext.report import result_table

TASK = "SafetyBallCircle-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    config = make_config("cvpo", TASK, cost_limit=10, steps=args.steps, seed=args.seed)
    done = run(config, out=args.out)
    print(result_table(done.result))
    print(f"curves: {done.folder / 'curves.png'}")

    # The run folder holds the best policy within the limit; it plays one episode in a fresh environment.
    policy, env = load_policy(done.folder), make(TASK)
    obs, _ = env.reset(seed=0)
    total_return = total_cost = 0.0
    ended = False
    while not ended:
        obs, reward, terminated, truncated, info = env.step(policy.compute_action(obs))
        total_return += reward
        total_cost += info["cost"]
        ended = terminated or truncated
    print(f"one episode: return {total_return:.1f}, cost {total_cost:.1f}")


if __name__ == "__main__":
    main()
