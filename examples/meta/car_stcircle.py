"""Meta-trains Meta-CPO on SafetyCarStcircle with one limit, and adapts the policy to a task with other ones.

python examples/meta/car_stcircle.py --steps 3600000 --limits 25 10
"""

import argparse

from fsrl_ext.env.meta import held_out_suite
from fsrl_ext.experiment import adapt, make_config, run
from fsrl_ext.report import text_table

FAMILY = "SafetyCarStcircle"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=float, nargs="+", default=[25.0, 10.0, 5.0], help="to adapt to")
    parser.add_argument("--steps", type=int, default=3_600_000)
    parser.add_argument("--adapt-steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    done = run(make_config("meta_cpo", FAMILY, cost_limit=25, steps=args.steps, seed=args.seed), out=args.out)

    # An adaptation changes neither the run nor its policy, so each one starts from the same meta-parameters.
    task = held_out_suite(FAMILY, "inside")[0]
    rows = []
    for limit in args.limits:
        adapted = done.folder / f"limit{limit:g}.pt"
        adaptation = adapt(
            done.folder, task, steps=args.adapt_steps, cost_limit=limit, seed=args.seed, out=adapted
        )
        before, after = adaptation.points[0].tested, adaptation.points[-1].tested
        row = [(one.return_mean, one.cost_mean[0]) for one in (before, after)]
        rows.append([f"{limit:g}", *(f"{number:.1f}" for pair in row for number in pair), str(adapted)])
    header = ["limit", "return before", "cost before", "return after", "cost after", "adapted policy"]
    print(text_table(header, rows, left=(5,)))


if __name__ == "__main__":
    main()
