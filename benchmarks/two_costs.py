"""Trains every algorithm with a limit on a task with two costs whose optimum is known.

    python benchmarks/two_costs.py [--policies cvpo,cpo] [--steps 60000] [--seed 0]

The last policy of each run is judged by 50 deterministic episodes. A run passes if its return is at least
0.95 of the optimum and each of its two costs is at most 1.05 times its limit. The command prints a table as
Markdown, and exits with 0 only if every run passes. Settings are those of ``benchmarks/known_optimum.py``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

from known_optimum import EPISODES, config_for, constrained_policies

from fsrl_ext.env import make
from fsrl_ext.env.two_costs import TWO_COSTS_TASK
from fsrl_ext.experiment import evaluate, run

LEAST_RETURN, MOST_COST = 0.95, 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policies", default="all", help="names, separated by commas (default: all)")
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all runs"
    )
    options = parser.parse_args()
    policies = constrained_policies() if options.policies == "all" else options.policies.split(",")
    print("| policy | return / optimum | cost first / limit | cost second / limit | seconds | passes |")
    print("|---|---:|---:|---:|---:|---|")
    passed = [_train(policy, options) for policy in policies]
    return int(not all(passed))


def _train(policy: str, options: argparse.Namespace) -> bool:
    config = config_for(
        policy, "two_costs", steps=options.steps, seed=options.seed, settings=options.set, task=TWO_COSTS_TASK
    )
    _, best = make(TWO_COSTS_TASK).unwrapped.optimum(config.cost_limit)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        done = run(config, out=folder, run_name="run", show_progress=False, cores=1)
        seconds = time.process_time() - started
        judged = evaluate(done.folder, episodes=EPISODES, checkpoint="last")
    earned = judged.return_mean / best
    costs = [cost / limit for cost, limit in zip(judged.cost_mean, config.cost_limit, strict=True)]
    passes = earned >= LEAST_RETURN and max(costs) <= MOST_COST
    shares = " | ".join(f"{cost:.3f}" for cost in costs)
    print(f"| {policy} | {earned:.3f} | {shares} | {seconds:.0f} | {'yes' if passes else 'no'} |", flush=True)
    return passes


if __name__ == "__main__":
    sys.exit(main())
