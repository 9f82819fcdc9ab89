"""Tunes two settings of SAC-Lagrangian with Optuna, and stops poor runs early with ASHA.

    python examples/tuning.py --out tuning --steps 100000 --samples 20

Needs Ray Tune and Optuna: pip install 'fsrl_ext[sweep]' optuna
"""

import argparse

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from fsrl_ext.experiment import Resources, sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="tuning", help="the study's folder")
    parser.add_argument("--task", default="SafetyBallCircle-v0")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of a whole run")
    parser.add_argument("--samples", type=int, default=20, help="runs")
    parser.add_argument("--cores", type=int, help="for all runs together (default: all)")
    parser.add_argument("--address", help="a Ray cluster that was started apart")
    options = parser.parse_args()
    settings = {
        "policy": "sac_lag",
        "task": options.task,
        "steps": options.steps,
        "selections": 20,
        "gamma": tune.choice([0.95, 0.97, 0.99]),
        "critic_lr": tune.loguniform(3e-4, 3e-3),
    }
    # Of the runs that come to a rung (at a tenth, three tenths, ... of the steps), the best third goes on.
    scheduler = ASHAScheduler(
        time_attr="env_step",
        max_t=options.steps,
        grace_period=max(options.steps // 10, 1),
        reduction_factor=3,
    )
    outcome = sweep(
        settings,
        out=options.out,
        samples=options.samples,
        search_alg=OptunaSearch(seed=0),
        scheduler=scheduler,
        resources=Resources(cores=options.cores, address=options.address),
    )
    print(f"{len(outcome.finished)} finished, {len(outcome.stopped)} stopped early")
    for name in sorted(outcome.objectives, key=lambda x: -outcome.objectives[x])[:5]:
        value = outcome.objectives[name]
        print(f"{f'{value:.2f}' if value > -1e9 else 'infeasible':>12}  {options.out}/{name}")


if __name__ == "__main__":
    main()
