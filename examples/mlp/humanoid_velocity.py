"""Trains PPO-Lag on SafetyHumanoidVelocity-v1 and judges a policy with sampled and with mean actions.

python examples/mlp/humanoid_velocity.py --steps 2000000
"""

import argparse

import numpy as np

from fsrl_ext.experiment import evaluate, make_config, run
from fsrl_ext.report import read_progress, text_table

TASK = "SafetyHumanoidVelocity-v1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=50, help="of each evaluation")
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    done = run(make_config("ppo_lag", TASK, cost_limit=25, steps=args.steps, seed=args.seed), out=args.out)

    # Training holds the limit against episodes with sampled actions. The policy that is used acts with the
    # mean of its Gaussian, which is another policy: it can cost more or less.
    rows = []
    progress = read_progress(done.folder)
    names = ("train/returns_stat/mean", "train/costs_stat/0/mean")
    logged = [progress.get(name, np.full(1, np.nan)) for name in names]
    newest = [f"{x[np.isfinite(x)][-1]:.1f}" if np.isfinite(x).any() else "-" for x in logged]
    rows.append(["newest training episodes, sampled actions", *newest, "-"])
    for stochastic in (True, False):
        judged = evaluate(
            done.folder, checkpoint="last", episodes=args.episodes, stochastic=stochastic, cost_limit=25
        )
        above = f"{np.mean(judged.costs > 25):.0%}"
        actions = "sampled actions" if stochastic else "mean actions"
        rows.append(
            [f"last policy, {actions}", f"{judged.return_mean:.1f}", f"{judged.cost_mean[0]:.1f}", above]
        )
    print(text_table(["episodes", "return", "cost", "above 25"], rows))


if __name__ == "__main__":
    main()
