"""Trains CVPO on SafetyAntCircle-v0 with settings of its own, and prints what each of them replaces.

python examples/mlp/ant_circle.py --steps 1000000
"""

import argparse

from fsrl_ext.experiment import make_config, run
from fsrl_ext.experiment.explained import explained_defaults
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.report import result_table

TASK = "SafetyAntCircle-v0"
# Every setting of 'fsrl-ext train cvpo --help' can stand here, whether it belongs to the run, the policy or
# the training. The others keep the defaults of the policy and the task.
SETTINGS = {
    "hidden_sizes": (256, 256),
    "cost_ensemble": 2,
    "cost_reduction": "max",
    "cost_margin": 0.2,
    "batch_size": 256,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    known, defaults = list_settings("cvpo"), explained_defaults("cvpo", TASK)
    for name, value in SETTINGS.items():
        default = defaults[name]
        print(f"{name} = {value} instead of {default.value}, which is from the {default.source}")
        print(f"    {known[name].help}")

    # A misspelt name and a value outside its range are errors here, before anything is trained.
    config = make_config("cvpo", TASK, cost_limit=10, steps=args.steps, seed=args.seed, **SETTINGS)
    done = run(config, out=args.out)
    print(result_table(done.result))


if __name__ == "__main__":
    main()
