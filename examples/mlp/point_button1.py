"""Trains PPO-Lag on SafetyPointButton1-v0 with a limit for each of three costs, by their names.

python examples/mlp/point_button1.py --steps 2000000
"""

import argparse

from fsrl_ext.env import make
from fsrl_ext.experiment import evaluate, make_config, run
from fsrl_ext.report import result_table

TASK = "SafetyPointButton1-v0"
LIMITS = {"hazards": 15.0, "gremlins": 10.0, "buttons": 5.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--episodes", type=int, default=20, help="of the last evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # Without names the cost is the sum of all of them; with names info["cost"] has a number for each.
    env = make(TASK, costs=tuple(LIMITS))
    print(f"costs of a step: {', '.join(env.cost_names)}")

    config = make_config(
        "ppo_lag",
        TASK,
        costs=tuple(LIMITS),
        cost_limit=tuple(LIMITS.values()),
        steps=args.steps,
        seed=args.seed,
    )
    done = run(config, out=args.out)
    print(result_table(done.result))

    # Names and limits are saved with the policy, and every limit has a multiplier of its own.
    judged = evaluate(done.folder, episodes=args.episodes)
    for name, cost, limit in zip(judged.cost_names, judged.cost_mean, judged.cost_limit, strict=True):
        print(f"{name}: cost {cost:.1f}, limit {limit:g}, {'kept' if cost <= limit else 'exceeded'}")


if __name__ == "__main__":
    main()
