"""Trains CVPO on safety-gymnasium's SafetyPointCircle1-v0 with some settings changed.

python examples/mlp/point_circle.py --steps 1000000
"""

import argparse

from fsrl_ext.experiment import make_config, run
from fsrl_ext.report import result_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--cost-limit", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # Every setting can be given here by name; the others keep the defaults of the task and the policy.
    config = make_config(
        "cvpo",
        "SafetyPointCircle1-v0",
        cost_limit=args.cost_limit,
        steps=args.steps,
        seed=args.seed,
        hidden_sizes=(256, 256),
        cost_ensemble=2,
        cost_reduction="max",
    )
    done = run(config, out=args.out)
    print(result_table(done.result))
    print(f"run folder: {done.folder}")


if __name__ == "__main__":
    main()
