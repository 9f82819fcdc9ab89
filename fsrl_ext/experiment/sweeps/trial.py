"""A trial of Ray Tune: it starts the process of a run, passes on what the process reports, and ends it.

The trial itself imports neither torch nor this package, so that it starts quickly and takes little memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fsrl_ext.experiment.sweeps.objective import FAILED

STOP_SECONDS = 40.0
"""Seconds that the process of a run has to end before it is killed."""
_POLL_SECONDS = 0.25
# The paths come before everything else is imported. Reports go where the standard output went, and what the
# run prints goes to the standard error.
_BOOT = """
import json, os, sys
job = json.loads(sys.stdin.buffer.readline())
sys.path[:] = job["paths"] + [path for path in sys.path if path and path not in job["paths"]]
reports = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from fsrl_ext.experiment.sweeps.child import main
main(job, reports)
"""


@dataclass(frozen=True, kw_only=True)
class TrialSetup:
    """What the trials of a sweep have in common.

    :param study: the study's folder, an absolute path.
    :param stop_file: a path; the trials end their runs when a file is there.
    :param command: to note in the runs' results.
    :param cores: of each run.
    """

    study: str
    stop_file: str
    command: str | None
    cores: int


def make_trial(
    setup: TrialSetup, job_of: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Callable[[dict[str, Any]], None]:
    """The trainable of Ray Tune for the runs of a study.

    :param job_of: from the settings of a trial, the run's ``name``, and its ``config`` or ``settings``. Ray
        pickles the function by value, so it must be a local function that needs the standard library alone.
    """
    common: dict[str, Any] = {
        "study": setup.study,
        "command": setup.command,
        "cores": setup.cores,
        "paths": [os.path.abspath(path) for path in sys.path],
    }
    cwd, stop_file, boot = os.getcwd(), setup.stop_file, _BOOT
    poll_seconds, stop_seconds, failed = _POLL_SECONDS, STOP_SECONDS, FAILED

    # Ray pickles a local function by value, and one of a module by the name of its module, which it imports.
    def trial(settings: dict[str, Any]) -> None:
        import json
        import os
        import queue
        import subprocess
        import sys
        import threading

        from ray import tune

        job = {**common, **job_of(settings)}
        log = os.path.join(job["study"], "logs", f"{job['name']}.log")
        # Of Ray's variables only those of this trial's process are new here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", boot],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd if os.path.isdir(cwd) else None,
                env=environment,
                start_new_session=True,
            )
        lines: queue.Queue[bytes] = queue.Queue()

        def read() -> None:
            for line in process.stdout:  # type: ignore[union-attr]
                lines.put(line)
            lines.put(b"")

        ended, env_step = False, 0
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            threading.Thread(target=read, daemon=True).start()
            while True:
                try:
                    line = lines.get(timeout=poll_seconds)
                except queue.Empty:
                    if os.path.exists(stop_file):
                        break
                    continue
                if not line:
                    break
                report = json.loads(line)
                ended, env_step = "end" in report, report.get("env_step", env_step)
                if report.get("end") != "interrupted":
                    tune.report({**report, "run": job["name"]})
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            try:
                code = process.wait(timeout=stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        if not ended and not os.path.exists(stop_file):
            # The process ended without a word, as a simulator that crashes lets it.
            with open(log, "ab") as output:
                output.write(f"the process of the run ended with exit code {code}\n".encode())
            tune.report({"env_step": env_step, "objective": failed, "end": "failed", "run": job["name"]})

    return trial
