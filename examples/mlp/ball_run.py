"""Chooses a cost limit on SafetyBallRun-v0: trains SAC-Lag with several limits and draws return against cost.

python examples/mlp/ball_run.py --steps 100000
"""

import argparse
from pathlib import Path

from fsrl_ext.experiment import make_config, run
from fsrl_ext.report.study import study_plot, study_table

TASK = "SafetyBallRun-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=float, nargs="+", default=[5.0, 10.0, 20.0, 40.0])
    parser.add_argument("--steps", type=int, default=100_000, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    folders = []
    for limit in args.limits:
        config = make_config("sac_lag", TASK, cost_limit=limit, steps=args.steps, seed=args.seed)
        folders.append(run(config, out=args.out).folder)

    # A limit that costs return binds. Where the return stays the same, the stricter limit is free.
    table, _ = study_table(folders, columns=["best-return", "best-cost", "best-feasible", "above"])
    print(table)
    picture = Path(args.out, "ball_run_limits.png")
    caption, _ = study_plot(folders, picture, kind="frontier")
    print(f"{picture}: {caption}")


if __name__ == "__main__":
    main()
