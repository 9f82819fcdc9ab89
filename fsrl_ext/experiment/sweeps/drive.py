"""Runs the runs of a study side by side with Ray Tune.

What has been done is what the run folders say. Ray Tune's own files are temporary.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment.sweeps.folder import StudyFolder
from fsrl_ext.experiment.sweeps.plan import PlannedRun, Resources, StudyPlan
from fsrl_ext.experiment.sweeps.ray_session import ray_session
from fsrl_ext.experiment.sweeps.status import RunState, run_state
from fsrl_ext.experiment.sweeps.trial import TrialSetup, make_trial
from fsrl_ext.experiment.sweeps.watch import TrialWatch
from fsrl_ext.experiment.training.lock import locked, trained_by
from fsrl_ext.report.folder import RunFolder

ORPHAN_SECONDS = 120.0
"""Seconds to wait for processes of a sweep that was killed; they end within about half of that."""
LOST_TRIALS = 2
"""How often a run is continued that was lost with its machine; a run that fails is not begun again."""
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class StudyOutcome:
    """How the runs of a sweep have ended; each is a tuple of the runs' names.

    :param finished: runs that are complete, those of former sweeps among them.
    :param failed: runs that an error ended. The same sweep continues them.
    :param stopped: runs that a scheduler stopped early. The same sweep continues them.
    :param unfinished: runs that did not begin, or were interrupted, or that another process trains.
    """

    finished: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()


def run_plan(plan: StudyPlan, *, show_progress: bool = True) -> StudyOutcome:
    """Trains all runs of a plan that have not finished, each in a process of its own.

    The run folders alone say what is to be done. Finished runs are skipped, runs with a snapshot are
    continued, and a folder that cannot be continued is renamed to ``<name>.broken-<count>`` before its run
    begins anew. A run that fails does not stop the others. What a run prints is in ``logs/<name>.log``.
    Processes of a former sweep that was killed end by themselves, and the sweep waits for them.

    Ctrl-C interrupts the runs cleanly, and so do SIGTERM and SIGHUP where a handler in Python answers them.
    The ``KeyboardInterrupt`` then comes when all processes have ended, with a note on how to go on.

    :param show_progress: whether to show on stderr how far the sweep is.
    :raises RunFolderError: if another sweep uses the folder, or a run folder has other settings than planned.
    :raises ValueError: if the resources are not there.
    :raises ImportError: Ray Tune is not installed.
    """
    from fsrl_ext.experiment.sweeps.overview import Overview  # takes imports

    study = StudyFolder(plan.folder.absolute())
    configs = {planned.name: planned.config for planned in plan.runs}
    with taken(study), saying_how_to_go_on(plan.command):
        todo = _open_runs(study, plan.runs, show_progress)
        overview = Overview(
            study, configs, total=len(configs), finished=len(configs) - len(todo), show=show_progress
        )
        ends: dict[str, str] = {}
        if todo:
            data = {planned.name: planned.config.as_dict() for planned in todo}
            search = Search(
                job_of=_planned_jobs(data),
                name_of=lambda settings: settings["run"],
                space={"run": {"grid_search": list(data)}},
                resources=plan.resources,
                command=plan.command,
            )
            ends = run_search(study, search, overview).ends
        states = {planned.name: run_state(study.path, planned).state for planned in plan.runs}
        outcome = outcome_of({name: state is RunState.FINISHED for name, state in states.items()}, ends)
        overview.close()
        return outcome


def outcome_of(finished: Mapping[str, bool], ends: Mapping[str, str]) -> StudyOutcome:
    """The outcome of a sweep.

    :param finished: whether the folder of a run says that it has finished, by the run's name.
    :param ends: how the trials of the runs ended, see :class:`~fsrl_ext.experiment.sweeps.watch.TrialWatch`.
    """
    groups: dict[str, list[str]] = {"finished": [], "failed": [], "stopped": [], "unfinished": []}
    for name, done in finished.items():
        end = "finished" if done else ends.get(name, "unfinished")
        groups[end if end in groups and (done or end != "finished") else "unfinished"].append(name)
    return StudyOutcome(**{name: tuple(runs) for name, runs in groups.items()})


def _planned_jobs(data: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def job_of(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": settings["run"], "config": data[settings["run"]]}

    return job_of


def _open_runs(study: StudyFolder, runs: Sequence[PlannedRun], show: bool) -> list[PlannedRun]:
    """The runs that have not finished, after the processes of a killed sweep have ended.

    :raises RunFolderError: if a run folder has other settings than planned.
    """
    wait_for_orphans(study, [planned.name for planned in runs], show=show)
    states = {planned.name: run_state(study.path, planned) for planned in runs}
    others = {name: status for name, status in states.items() if status.state is RunState.OTHER}
    if others:
        name, status = next(iter(others.items()))
        more = f"; the same is true of {len(others) - 1} more runs" if len(others) > 1 else ""
        raise RunFolderError(
            f"{study.run(name).path} has other settings than planned: {status.reason}{more}; "
            "choose another folder for the study"
        )
    return [planned for planned in runs if states[planned.name].state is not RunState.FINISHED]


def wait_for_orphans(study: StudyFolder, names: Sequence[str], *, show: bool = False) -> None:
    """Waits until no process trains one of the runs, at most :data:`ORPHAN_SECONDS`."""
    deadline, said = time.monotonic() + ORPHAN_SECONDS, not show
    while time.monotonic() < deadline:
        owners = {name: trained_by(study.run(name)) for name in names}
        owners = {name: owner for name, owner in owners.items() if owner is not None}
        if not owners:
            return
        if not said:
            warnings.warn(
                "waiting for processes of a former sweep to end: "
                + ", ".join(f"{owner} trains {name}" for name, owner in owners.items()),
                stacklevel=4,
            )
        said = True
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def taken(study: StudyFolder) -> Iterator[None]:
    """Makes the study's folder, and keeps other sweeps out of it while the block lasts.

    :raises RunFolderError: if another sweep uses it, or it cannot be made.
    """
    try:
        study.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{study.path} cannot be a study's folder: {error.strerror}") from error
    owner = trained_by(RunFolder(study.path))
    if owner is not None:
        raise RunFolderError(f"{study.path} is in use: the sweep of process {owner} runs there")
    with locked(RunFolder(study.path)):
        yield


@contextlib.contextmanager
def saying_how_to_go_on(command: str) -> Iterator[None]:
    """Notes in a keyboard interrupt how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"to go on: {command}")
        raise


@dataclass(frozen=True, kw_only=True)
class Search:
    """What Ray Tune is to try, and how.

    :param job_of: as for :func:`~fsrl_ext.experiment.sweeps.trial.make_trial`.
    :param name_of: from the settings of a trial, the name of its run.
    :param space: of settings, as Ray Tune takes it.
    :param samples: of the space.
    :param search_alg: of Ray Tune; all points of a grid, or random ones, if not given.
    :param scheduler: of Ray Tune; every run is trained to its end if not given.
    :param command: to note in the runs' results; code that makes the one run if not given.
    """

    job_of: Callable[[Mapping[str, Any]], dict[str, Any]]
    name_of: Callable[[Mapping[str, Any]], str]
    space: Mapping[str, Any]
    resources: Resources
    command: str | None
    samples: int = 1
    search_alg: Any = None
    scheduler: Any = None


def run_search(study: StudyFolder, search: Search, overview: Any) -> TrialWatch:
    """Lets Ray Tune run trials until the search is over; signals interrupt the runs cleanly.

    :param overview: an :class:`~fsrl_ext.experiment.sweeps.overview.Overview`.
    :return: what has come of the trials.
    :raises KeyboardInterrupt: after a signal, when the runs have been interrupted.
    """
    resources = search.resources
    with contextlib.ExitStack() as stack:
        stack.callback(overview.close)
        temporary = stack.enter_context(ray_session(resources))
        from ray import tune

        _check_resources(resources)
        stop_file = study.path / f".stop-{temporary.name}"
        stack.callback(stop_file.unlink, missing_ok=True)
        guard = stack.enter_context(InterruptGuard())
        watch = TrialWatch(overview, search.name_of, guard, stop_file, study)
        trial = make_trial(
            TrialSetup(
                study=str(study.path),
                stop_file=str(stop_file),
                command=search.command,
                cores=max(int(resources.cpus_per_run), 1),
            ),
            search.job_of,
        )
        limit = None
        if resources.address is not None and resources.cores is not None:
            limit = max(int(resources.cores / resources.cpus_per_run), 1)
        tuner = tune.Tuner(
            tune.with_resources(trial, {"cpu": resources.cpus_per_run, "gpu": resources.gpus_per_run}),
            param_space=dict(search.space),
            tune_config=tune.TuneConfig(
                metric="objective",
                mode="max",
                num_samples=search.samples,
                search_alg=search.search_alg,
                scheduler=search.scheduler,
                max_concurrent_trials=limit,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(temporary / "tune"),
                verbose=0,
                callbacks=[watch.callback()],
                stop=watch.stopper(),
                failure_config=tune.FailureConfig(max_failures=LOST_TRIALS),
            ),
        )
        with _quiet_loggers():
            guard.hold()
            tuner.fit()
        wait_for_orphans(study, list(watch.ends))
        guard.release()
    return watch


def _check_resources(resources: Resources) -> None:
    """Checks that a run can begin.

    :raises ValueError: if it needs more than there is.
    """
    import ray

    there = ray.cluster_resources()
    for name, needed, kind in (
        ("cpus_per_run", resources.cpus_per_run, "CPU"),
        ("gpus_per_run", resources.gpus_per_run, "GPU"),
    ):
        if needed > there.get(kind, 0.0):
            raise ValueError(
                f"{name} must be at most {there.get(kind, 0.0):g}, the {kind}s that Ray has, got {needed:g}"
            )


def _trial_id(trial: Any) -> str:
    """The name and the folder of a trial among Ray Tune's own files, short because paths have limits."""
    return trial.trial_id


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Keeps what Ray and Optuna log from the terminal; the overview says what happens."""
    names = {**dict.fromkeys(("ray", "ray.tune", "ray.train"), logging.CRITICAL), "optuna": logging.WARNING}
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, names.values(), strict=True):
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
