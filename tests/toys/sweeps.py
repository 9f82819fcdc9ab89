"""Small studies, and processes that run them and are stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from fsrl_ext.experiment import PlannedRun, Resources, StudyPlan
from toys.settings import small_config

TASK, FAILING = "KnownOptimum-v0", "toys.registered:ToyFailing-v0"


def small_plan(folder, *, failing=False, **resources):
    """Return a plan of two policies with two seeds each.

    :param failing: whether there is a run, before the others, whose environment raises an error.
    :param resources: fields of ``Resources``.
    """
    runs = [
        PlannedRun(name=f"{policy}-{seed}", config=small_config(policy, TASK, seed=seed))
        for policy in ("td3_lag", "ppo_lag")
        for seed in (0, 1)
    ]
    if failing:
        runs.insert(0, PlannedRun(name="failing", config=small_config("td3_lag", FAILING)))
    return StudyPlan(
        folder=Path(folder),
        runs=tuple(runs),
        resources=Resources(**{"cores": 2, **resources}),
        command="fsrl-ext sweep small",
    )


def start_driver(folder):
    """Start a process that runs the small plan, one run after another."""
    code = (
        "from fsrl_ext.experiment import run_plan\n"
        "from toys.sweeps import small_plan\n"
        f"run_plan(small_plan({str(folder)!r}, cores=1))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds=120.0):
    """Wait until a condition holds; fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
