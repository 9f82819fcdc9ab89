"""Trains an algorithm on SafetyBallCircle-v0 with a cost limit and without, and judges both by the limit.

python examples/mlp/ball_circle_baselines.py --policy ddpg --steps 200000
"""

import argparse

from fsrl_ext.experiment import evaluate, make_config, run
from fsrl_ext.report import result_table

TASK = "SafetyBallCircle-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=("sac", "ddpg", "td3", "trpo", "ppo"), default="ddpg")
    parser.add_argument("--cost-limit", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--episodes", type=int, default=50, help="episodes of the final evaluations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    common = {"steps": args.steps, "seed": args.seed, "final_episodes": args.episodes}
    if args.policy in ("ddpg", "td3"):
        # They begin with random actions, of which a short run affords fewer.
        common["warmup_steps"] = min(10_000, args.steps // 10)
    constrained = make_config(f"{args.policy}_lag", TASK, cost_limit=args.cost_limit, **common)
    done = run(constrained, out=args.out)
    print(result_table(done.result))

    # The second run knows no limit; its policy is judged by the limit of the first run.
    free = run(make_config(args.policy, TASK, **common), out=args.out)
    judged = evaluate(free.folder, episodes=args.episodes, cost_limit=args.cost_limit)
    print(f"without a limit: return {judged.return_mean:.1f}, cost {judged.cost_mean[0]:.1f}")


if __name__ == "__main__":
    main()
