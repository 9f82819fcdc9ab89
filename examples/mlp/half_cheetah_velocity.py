"""Trains CVPO on SafetyHalfCheetahVelocity-v1 and reads the log: did the constraint hold, and what held it?

python examples/mlp/half_cheetah_velocity.py --steps 1000000
"""

import argparse
import itertools

import numpy as np

from fsrl_ext.experiment import make_config, run
from fsrl_ext.report import read_progress, text_table

TASK = "SafetyHalfCheetahVelocity-v1"
# Columns of progress.csv, and what they say. TensorBoard has the same ones.
COLUMNS = {
    "train/returns_stat/mean": "return of the training episodes",
    "train/costs_stat/0/mean": "their cost, to be compared with the limit",
    "update/constraint/expected_cost": "cost that the critics expect of the updated policy",
    "update/constraint/multiplier": "price of the cost in units of return: 0 where the limit does not bind",
    "update/estep/kl_relative": "use of the E-step's trust region: 1 is all of it",
    "update/policy/std": "standard deviation of the actions: exploration that is left",
    "update/loss/critic_cost": "loss of the cost critic",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    done = run(make_config("cvpo", TASK, cost_limit=25, steps=args.steps, seed=args.seed), out=args.out)

    # A row has the values of its environment step alone; what was not logged there is NaN.
    progress = read_progress(done.folder)
    edges = np.linspace(0, progress["env_step"][-1], 5)
    rows = []
    for column, meaning in COLUMNS.items():
        values = progress.get(column, np.full(len(progress["env_step"]), np.nan))
        quarters = [
            values[(progress["env_step"] > start) & (progress["env_step"] <= end) & np.isfinite(values)]
            for start, end in itertools.pairwise(edges)
        ]
        rows.append([column, *(f"{x.mean():.3g}" if len(x) else "-" for x in quarters), meaning])
    header = ["mean over a quarter of the run", "1st", "2nd", "3rd", "4th", "meaning"]
    print(text_table(header, rows, left=(0, 5)))
    print(f"training episodes above the limit: {done.result['share_above_limit']:.0%}")


if __name__ == "__main__":
    main()
