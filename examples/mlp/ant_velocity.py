"""Trains SAC-Lag on SafetyAntVelocity-v1 with a limit that is loose at first and tightens while it learns.

python examples/mlp/ant_velocity.py --steps 1000000 --start 200
"""

import argparse

from fsrl_ext.experiment import make_config, run
from fsrl_ext.report import result_table

TASK = "SafetyAntVelocity-v1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=float, default=200.0, help="the limit at the start")
    parser.add_argument("--limit", type=float, default=25.0, help="the limit that policies are judged by")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # A tight limit from the first step on can teach an ant to stand still before it has learnt to walk.
    config = make_config(
        "sac_lag",
        TASK,
        cost_limit=args.limit,
        cost_limit_start=args.start,
        cost_limit_decay_steps=max(args.steps // 2, 1),
        steps=args.steps,
        seed=args.seed,
    )
    for tenths in (0, 1, 2, 5, 10):
        step = args.steps * tenths // 10
        print(f"limit at step {step:>9,}: {config.scheduled_cost_limit(step)[0]:6.1f}")

    # Selections, the table and the share above the limit count by the final limit all the time.
    done = run(config, out=args.out)
    print(result_table(done.result))


if __name__ == "__main__":
    main()
