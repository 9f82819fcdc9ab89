"""Compares Meta-CPO with one policy for all tasks on fields of buttons, before and after an adaptation.

python examples/meta/car_stbutton.py --steps 3600000
"""

import argparse

from fsrl_ext.experiment import evaluate_suite, make_config, run
from fsrl_ext.experiment.saved.suite import suite_table

FAMILY = "SafetyCarStbutton"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3_600_000)
    parser.add_argument("--step-per-collect", type=int, default=3000)
    parser.add_argument("--adapt-steps", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    for policy in ("meta_cpo", "multitask_cpo"):
        config = make_config(
            policy,
            FAMILY,
            cost_limit=25,
            steps=args.steps,
            step_per_collect=args.step_per_collect,
            selection_episodes=args.episodes,
            final_episodes=args.episodes,
            seed=args.seed,
        )
        done = run(config, out=args.out)
        found = evaluate_suite(
            done.folder,
            "outside",
            num_tasks=args.tasks,
            adapt_steps=args.adapt_steps,
            episodes=args.episodes,
            seed=args.seed,
        )
        print(f"{policy}: {len(found.tasks)} tasks outside of the training range")
        print(suite_table(found))


if __name__ == "__main__":
    main()
