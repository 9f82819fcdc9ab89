"""Trains TRPO-Lag on SafetySwimmerVelocity-v1 with a limit on the discounted cost, as papers on speed set it.

python examples/mlp/swimmer_velocity.py --steps 1000000
"""

import argparse

from fsrl_ext.experiment import evaluate, make_config, run

TASK = "SafetySwimmerVelocity-v1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cost-limit", type=float, default=5.0, help="on the discounted cost of an episode")
    parser.add_argument("--episodes", type=int, default=20, help="of the evaluation at the end")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # The discounted cost counts a step after t steps gamma^t, so costs early in the episode weigh most. An
    # episode whose every step costs c has the discounted cost c (1 - gamma^T) / (1 - gamma): with gamma 0.99
    # and 1,000 steps, a limit of 5 allows costs in one step of twenty.
    config = make_config(
        "trpo_lag",
        TASK,
        cost_limit=args.cost_limit,
        limit_unit="discounted",
        cost_gamma=0.99,
        steps=args.steps,
        seed=args.seed,
    )
    done = run(config, out=args.out)

    # Every verdict is in the unit of the run, and evaluations know both units of the same episodes.
    judged = evaluate(done.folder, episodes=args.episodes)
    assert judged.other_costs is not None
    verdict = "within" if judged.feasible else "above"
    print(f"discounted cost {judged.cost_mean[0]:.2f}, {verdict} the limit {args.cost_limit:g}")
    print(f"sum of the costs of an episode {judged.other_costs.mean():.1f}, return {judged.return_mean:.1f}")


if __name__ == "__main__":
    main()
