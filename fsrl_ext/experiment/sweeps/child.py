"""The process of one run of a sweep, which trains it and reports to the process that started it.

Each run has a process of its own, so that nothing of another run is left in it, such as torch's threads or
random numbers. The first line of the standard input is a job, as :func:`main` describes it, and the input
then stays open. When the input ends, the process that started this one wants it to stop, or is gone, and the
run is interrupted as by Ctrl-C. Reports are lines of JSON on the standard output. What the run prints goes to
the standard error, which is its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment import ExperimentConfig, RunCallback, make_config, resume, run
from fsrl_ext.experiment.sweeps.folder import StudyFolder
from fsrl_ext.experiment.sweeps.objective import FAILED, best_objective, objective_of
from fsrl_ext.experiment.sweeps.plan import PlannedRun
from fsrl_ext.experiment.sweeps.status import RunState, RunStatus, run_state
from fsrl_ext.experiment.training.callbacks import RunView
from fsrl_ext.report import read_result

STOP_SECONDS = 30.0
"""Seconds that a run has to end after its input has ended; the process then ends in any case."""
_AGAIN_SECONDS = 5.0
_POLL_SECONDS = 0.5


def main(job: dict[str, Any], reports: IO[str]) -> None:
    """Trains the run of a job, or goes on with it, and reports.

    Reports have the run's ``env_step`` and ``objective`` after each selection but the last one. The last
    report comes when the run has ended; its ``end`` is ``"finished"``, ``"interrupted"`` or ``"failed"``.

    :param job: ``study``, the folder; ``name`` of the run; its settings as ``config``, a complete one, or as
        ``settings`` for :func:`~fsrl_ext.experiment.make_config`; ``command`` to note in the result; and
        ``cores`` of the run.
    """
    _raise_interrupts()
    reporter = Reporter(reports)
    try:
        threading.Thread(target=_watch_input, daemon=True).start()
        reporter.end(train(job, reporter))
    except KeyboardInterrupt as interrupt:
        reporter.send(end="interrupted")
        print("interrupted", *getattr(interrupt, "__notes__", ()), sep="; ", file=sys.stderr)
    except BaseException:
        reporter.send(env_step=reporter.env_step, objective=FAILED, end="failed")
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to be interrupted


def train(job: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Trains the run as far as it is not trained, and returns the content of its ``result.json``.

    :raises RunFolderError: if the run folder has other settings.
    """
    if "config" in job:
        config = ExperimentConfig.from_dict(job["config"])
    else:
        config = make_config(**job["settings"])
    study, planned = StudyFolder(Path(job["study"])), PlannedRun(name=job["name"], config=config)
    folder = study.run(planned.name).path
    status = _wait_for_others(study, planned)
    if status.state is RunState.OTHER:
        raise RunFolderError(f"{folder} has other settings: {status.reason}")
    if status.state is RunState.FINISHED:
        result = read_result(folder)
        reporter.replay(result)
        return result
    options: dict[str, Any] = {"show_progress": False, "callbacks": [reporter], "cores": job["cores"]}
    if status.state is RunState.STARTED:
        print(f"{folder} is continued", file=sys.stderr)
        # The task is that of the plan, which its user has written.
        return resume(folder, allow_import=True, **options).result
    if status.state is RunState.BROKEN:
        print(f"{status.reason}; it was renamed to {study.set_aside(planned.name)}", file=sys.stderr)
    return run(config, out=study.path, run_name=planned.name, command=job["command"], **options).result


def _wait_for_others(study: StudyFolder, planned: PlannedRun) -> RunStatus:
    """The state of the run when no other process trains it any more."""
    said = False
    while (status := run_state(study.path, planned)).state is RunState.LOCKED:
        if not said:
            print(f"waiting, because {status.reason}", file=sys.stderr, flush=True)
        said = True
        time.sleep(_POLL_SECONDS)
    return status


class Reporter(RunCallback):
    """Writes a report after each selection and at the end.

    :param reports: where the reports are written.
    """

    env_step = 0
    """Environment steps of the run at its newest collect."""

    def __init__(self, reports: IO[str]) -> None:
        self._reports = reports

    def on_collect_end(self, run: RunView) -> None:
        """Notes how far the run is."""
        self.env_step = run.env_step

    def send(self, **report: Any) -> None:
        """Writes a report, unless nobody is there to read it."""
        with contextlib.suppress(OSError):
            print(json.dumps(report), file=self._reports, flush=True)

    def on_selection(self, run: RunView) -> None:
        """Reports the best policy so far.

        The report of the last selection waits for the final evaluation, because a scheduler may stop a run
        whose steps are complete.
        """
        best, newest = run.trainer.best, run.evaluation
        # The verdict may come when the run is some steps further.
        if best is not None and newest is not None and newest.env_step < run.config.steps:
            self.send(env_step=newest.env_step, objective=objective_of(best))

    def replay(self, result: dict[str, Any]) -> None:
        """Reports the selections of a run that had finished before."""
        selections, limits = result["selections"], result["config"]["cost_limit"]
        for count, selection in enumerate(selections, start=1):
            if selection["env_step"] < result["config"]["steps"]:
                value = best_objective(selections[:count], limits)
                self.send(env_step=selection["env_step"], objective=value)

    def end(self, result: dict[str, Any]) -> None:
        """Reports how the run ended."""
        value = best_objective(result["selections"], result["config"]["cost_limit"])
        self.send(env_step=result["env_step"], objective=value, end=result["status"])


def _raise_interrupts() -> None:
    """Lets signals interrupt the run. The processes of Ray block SIGINT, and a process inherits that."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _watch_input() -> None:
    """Interrupts the run when the standard input ends.

    While a run is saved it ignores the interrupt, which is therefore repeated.
    """
    while os.read(
        sys.stdin.fileno(), 1
    ):  # a buffered read would hold a lock that the interpreter's end needs
        continue
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_AGAIN_SECONDS)
    os._exit(1)
