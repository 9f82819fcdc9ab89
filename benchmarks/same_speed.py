"""Whether two checkouts of this repository are as fast as each other: updates, collecting, imports.

    git worktree add ../before COMMIT
    python benchmarks/same_speed.py ../before .

Each round starts a process in the first checkout and one in the second, one after the other, so that a
machine whose speed drifts slows both. A process builds policies through the experiment API on
SafetyBallCircle-v0 and measures processor time on one thread. The table has the smallest and the median time
of each checkout over the rounds, and the ratios of the second to the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

# Runs in a checkout of any layout.
WORKER = """
import json, statistics, sys, time
begun = time.process_time()
import fsrl_ext
first = time.process_time() - begun
import fsrl_ext.policy, fsrl_ext.experiment
seconds = {"import fsrl_ext": first, "import policy, experiment": time.process_time() - begun}
import torch
from tianshou.policy.base import policy_within_training_step
from fsrl_ext.experiment import make_config
try:
    from fsrl_ext.experiment.training import build
except ImportError:
    from fsrl_ext.experiment import build

def least(call, repeats):
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        call()
        times.append(time.process_time() - begun)
    return min(times)

for name in sys.argv[1:]:
    config = make_config(name, "SafetyBallCircle-v0", seed=0)
    build.seed_everything(config)
    policy, _ = build.build_policy(config)
    collector = build.train_collector(policy, config)
    collector.reset(gym_reset_kwargs={"seed": list(range(10))})
    with policy_within_training_step(policy):
        collector.collect(n_step=200)
        collect = lambda: collector.collect(n_step=1000)
        seconds[f"{name}: 1000 collected steps"] = least(collect, 4)
        policy.train()
        if hasattr(config.training, "update_per_step") and name not in ("cpo", "ppo_lag"):
            def updates():
                for _ in range(50):
                    policy.update(config.training.batch_size, collector.buffer)
            updates()
            seconds[f"{name}: gradient step"] = least(updates, 6) / 50
        else:
            batch, repeat = config.training.batch_size, config.training.repeat_per_collect
            update = lambda: policy.update(0, collector.buffer, batch_size=batch, repeat=repeat)
            seconds[f"{name}: update of 4200 steps"] = least(update, 4)
    collector.close()
print("seconds", json.dumps(seconds))
"""
POLICIES = ("cvpo", "sac_lag", "td3_lag", "cpo", "ppo_lag")


def measured(checkout: Path, policies: list[str]) -> dict[str, float]:
    """Returns processor times in seconds by name, measured in a process of the checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", WORKER, *policies]
    out = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=True
    ).stdout
    line = next(x for x in out.splitlines() if x.startswith("seconds "))
    return json.loads(line.removeprefix("seconds "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    options = parser.parse_args()
    times: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for _ in range(options.rounds):
        for which, checkout in enumerate((options.first.resolve(), options.second.resolve())):
            for name, seconds in measured(checkout, options.policies).items():
                times[name][which].append(1000 * seconds)
    print(f"{'milliseconds of processor time':34} {'first':>16} {'second':>16}   ratio (least, median)")
    for name, (a, b) in times.items():
        cells = [f"{min(x):.2f}, {median(x):.2f}" for x in (a, b)]
        ratios = f"{min(b) / min(a):.2f}, {median(b) / median(a):.2f}"
        print(f"{name:34} {cells[0]:>16} {cells[1]:>16}   {ratios}")


if __name__ == "__main__":
    main()
