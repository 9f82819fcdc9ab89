"""Trains every algorithm for discrete actions on a task whose optimum is the solution of a linear program.

    python benchmarks/discrete_optimum.py [--policies cvpo,cpo] [--steps 60000] [--seed 0]

The last policy of each run is judged exactly: its probabilities in the eight states give the expected return
and cost of an episode. A run passes if its return is at least 0.95 of the optimum and its cost at most 1.05
times the limit. The best policy mixes two actions in one state, so the policy is judged as it samples; the
columns of the most probable actions are what a deterministic evaluation plays. ``seconds`` are processor
seconds. The command prints a table as Markdown, and exits with 0 only if every run passes. Settings are those
of ``benchmarks/known_optimum.py``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from known_optimum import config_for

from fsrl_ext.env import make
from fsrl_ext.env.discrete_optimum import DISCRETE_TASK
from fsrl_ext.experiment import load_policy, run
from fsrl_ext.functional.distribution import distribution

POLICIES = "cvpo,cpo,trpo_lag,ppo_lag,focops"
LEAST_RETURN, MOST_COST = 0.95, 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policies", default=POLICIES, help=f"separated by commas (default: {POLICIES})")
    parser.add_argument("--steps", type=int, default=60_000, help="environment steps of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all runs"
    )
    options = parser.parse_args()
    print("| policy | return / optimum | cost / limit | most probable: return | cost | seconds | passes |")
    print("|---|---:|---:|---:|---:|---:|---|")
    passed = [_train(policy, options) for policy in options.policies.split(",")]
    return int(not all(passed))


def probabilities(policy: Any) -> np.ndarray:
    """Returns a policy's probabilities ``[S, A]`` of the actions in each state."""
    obs = np.eye(8, dtype=np.float32)
    seen = policy._normalised(obs) if hasattr(policy, "_normalised") else policy.data.observations(obs)
    with torch.no_grad():
        return distribution(policy.actor(seen)[0]).probs.double().numpy()


def _train(policy: str, options: argparse.Namespace) -> bool:
    config = config_for(
        policy, "discrete", steps=options.steps, seed=options.seed, settings=options.set, task=DISCRETE_TASK
    )
    (limit,) = config.cost_limit
    env: Any = make(DISCRETE_TASK).unwrapped
    _, best = env.optimum(limit)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        done = run(config, out=folder, run_name="run", show_progress=False, cores=1)
        seconds = time.process_time() - started
        probs = probabilities(load_policy(done.folder / "checkpoints" / "last.pt"))
    shares = []
    for played in (probs, np.eye(probs.shape[1])[probs.argmax(1)]):
        earned, spent = env.value(played)
        shares += [earned / best, spent / limit]
    passes = shares[0] >= LEAST_RETURN and shares[1] <= MOST_COST
    numbers = " | ".join(f"{x:.3f}" for x in shares)
    print(f"| {policy} | {numbers} | {seconds:.0f} | {'yes' if passes else 'no'} |", flush=True)
    return passes


if __name__ == "__main__":
    sys.exit(main())
