"""Trains CVPO on SafetyDroneCircle-v0 with several seeds, because one run says little about an algorithm.

python examples/mlp/drone_circle.py --steps 300000 --seeds 5
"""

import argparse
from pathlib import Path

from fsrl_ext.experiment import make_config, run
from fsrl_ext.report.study import study_plot, study_table

TASK = "SafetyDroneCircle-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300_000, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # The seed draws networks, exploration and training episodes; every policy is judged on the same episodes.
    folders = []
    for seed in range(args.seed, args.seed + args.seeds):
        config = make_config("cvpo", TASK, cost_limit=10, steps=args.steps, seed=seed)
        folders.append(run(config, out=args.out).folder)

    # Means have 95% t intervals over seeds, which are wide with three of them.
    print(study_table(folders, parts=["policies", "training"])[0])
    picture = Path(args.out, "drone_circle_seeds.png")
    print(f"{picture}: {study_plot(folders, picture)[0]}")


if __name__ == "__main__":
    main()
