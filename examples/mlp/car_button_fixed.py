"""Trains CVPO on a task of its paper with the settings of the authors, and prints what these replace.

python examples/mlp/car_button_fixed.py --steps 1000000
"""

import argparse

from fsrl_ext.experiment import make_config, run
from fsrl_ext.experiment.explained import explained_defaults
from fsrl_ext.report import result_table

TASK = "SafetyCarButtonFixed-v0"
TASKS = (TASK, "SafetyPointButtonFixed-v0", "SafetyCarGoalFixed-v0", "SafetyPointGoalFixed-v0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, default=TASK)
    parser.add_argument("--preset", choices=("tuned", "paper"), default="paper")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    tuned = explained_defaults("cvpo", args.task)
    for name, default in explained_defaults("cvpo", args.task, preset=args.preset).items():
        if default.source == "preset" and default.value != tuned[name].value:
            print(f"{name} = {default.value}, by default {tuned[name].value}")

    # What is given by name wins over the preset: a short run affords fewer random actions at its start.
    settings = {"warmup_steps": min(4_000, args.steps // 10)} if args.preset == "paper" else {}
    config = make_config(
        "cvpo", args.task, preset=args.preset, cost_limit=10, steps=args.steps, seed=args.seed, **settings
    )
    print(result_table(run(config, out=args.out).result))


if __name__ == "__main__":
    main()
