"""Compares three algorithms on SafetyWalker2dVelocity-v1: one table, one figure, one page.

python examples/mlp/walker2d_velocity.py --steps 1000000
"""

import argparse
from pathlib import Path

from fsrl_ext.experiment import make_config, run
from fsrl_ext.report.page import study_page
from fsrl_ext.report.study import study_plot, study_table

TASK = "SafetyWalker2dVelocity-v1"
POLICIES = ("cpo", "ppo_lag", "ppo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # PPO has no constraint: what it earns and costs shows what the limit takes away.
    folders = []
    for policy in POLICIES:
        limit = {} if policy == "ppo" else {"cost_limit": 25}
        config = make_config(policy, TASK, steps=args.steps, seed=args.seed, **limit)
        folders.append(run(config, out=args.out).folder)

    # 'fsrl-ext table', 'plot' and 'report' do the same, and 'fsrl-ext sweep' trains the runs side by side.
    print(study_table(folders, form="markdown", parts=["policies", "training"])[0])
    figure, page = Path(args.out, "walker2d.png"), Path(args.out, "walker2d.html")
    print(f"{figure}: {study_plot(folders, figure)[0]}")
    study_page(folders, page, title="Three algorithms on Walker2d", command="walker2d_velocity.py")
    print(page)


if __name__ == "__main__":
    main()
