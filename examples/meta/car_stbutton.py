"""Compares Meta-CPO with one policy for all tasks of SafetyCarStbutton, before and after an adaptation.

python examples/meta/car_stbutton.py --steps 3600000
"""

import argparse

from fsrl_ext.experiment import evaluate_suite, make_config, run
from fsrl_ext.experiment.saved.suite import suite_table

FAMILY = "SafetyCarStbutton"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3_600_000, help="of each run")
    parser.add_argument("--adapt-steps", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=20, help="held-out tasks, at most 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # Both learn from the same number of steps. The multitask policy is fine-tuned by the steps of CPO.
    for policy in ("meta_cpo", "multitask_cpo"):
        config = make_config(policy, FAMILY, cost_limit=25, steps=args.steps, seed=args.seed)
        done = run(config, out=args.out)
        evaluation = evaluate_suite(
            done.folder, "outside", num_tasks=args.tasks, adapt_steps=args.adapt_steps, seed=args.seed
        )
        print(f"{policy}: {len(evaluation.tasks)} tasks outside of the training range")
        print(suite_table(evaluation))


if __name__ == "__main__":
    main()
