"""Meta-trains Meta-CPO on SafetyPointStbutton, and plays tasks inside and outside of the training range.

python examples/meta/point_stbutton.py --steps 3600000
"""

import argparse

from fsrl_ext.env.meta import held_out_suite
from fsrl_ext.experiment import evaluate_suite, make_config, run

FAMILY = "SafetyPointStbutton"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3_600_000)
    parser.add_argument("--adapt-steps", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=20, help="of each suite, at most 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    done = run(make_config("meta_cpo", FAMILY, cost_limit=25, steps=args.steps, seed=args.seed), out=args.out)

    # The task seeds of the suites are beyond those that training draws. "outside" also has other parameters.
    for suite in ("inside", "outside"):
        first = held_out_suite(FAMILY, suite)[0]
        drawn = ", ".join(f"{name} {value:g}" for name, value in first.parameters.items())
        print(f"\n{suite} of the training range, such as {drawn}")
        evaluation = evaluate_suite(
            done.folder, suite, num_tasks=args.tasks, adapt_steps=args.adapt_steps, seed=args.seed
        )
        for when, episodes in (("before", evaluation.before), ("after", evaluation.after)):
            kept = sum(one.feasible for one in episodes)
            returns = sum(one.return_mean for one in episodes) / len(episodes)
            print(f"{when} adaptation: return {returns:.1f}, limit kept on {kept} of {len(episodes)} tasks")


if __name__ == "__main__":
    main()
