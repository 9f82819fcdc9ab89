"""Trains SAC-Lag on SafetyCarGoal1-v0 with two kinds of Lagrange multipliers, and shows how they moved.

python examples/mlp/car_goal1.py --steps 1000000
"""

import argparse

import numpy as np

from fsrl_ext.experiment import make_config, run
from fsrl_ext.report import read_progress, text_table

TASK = "SafetyCarGoal1-v0"
# A surplus of the size of the limit counts as one, so these numbers fit every task (docs/cost_level.md).
MULTIPLIERS = {
    "PID control": {"multiplier_method": "pid", "multiplier_gains": (0.2, 0.02, 0.1), "multiplier_max": 20.0},
    "dual ascent": {"multiplier_method": "ascent", "multiplier_lr": 0.05, "multiplier_init": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    rows = []
    for name, settings in MULTIPLIERS.items():
        config = make_config("sac_lag", TASK, cost_limit=25, steps=args.steps, seed=args.seed, **settings)
        done = run(config, out=args.out)
        best, share = done.result["best"], done.result["share_above_limit"]
        # A row of the log has NaN where nothing was logged; a run of one step logs no multiplier at all.
        logged = read_progress(done.folder).get("update/constraint/multiplier", np.zeros(1))
        multiplier = logged[np.isfinite(logged)]
        rows.append(
            [
                name,
                f"{best['return_mean']:.1f}",
                f"{best['cost_mean'][0]:.1f}",
                f"{share:.0%}",
                f"{multiplier.max():.2f}",
                f"{multiplier[-1]:.2f}",
            ]
        )
    header = ["multipliers", "best return", "its cost", "training above", "largest multiplier", "last one"]
    print(text_table(header, rows))


if __name__ == "__main__":
    main()
