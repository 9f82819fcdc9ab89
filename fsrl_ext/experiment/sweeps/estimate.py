"""About how long the runs of a study will take, from runs that have finished."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.defaults import suite_of
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.sweeps.plan import PlannedRun, Resources, StudyPlan
from fsrl_ext.experiment.sweeps.status import RunState
from fsrl_ext.experiment.training.cores import available_cores
from fsrl_ext.report import read_result
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.progress import read_columns

RATES: dict[str, dict[str, float]] = {
    "cpo": {"bullet-safety-gym": 970.0, "known-optimum": 3100.0, "safety-gymnasium": 1900.0},
    "cvpo": {"bullet-safety-gym": 190.0, "known-optimum": 790.0, "safety-gymnasium": 330.0},
    "ddpg_lag": {"bullet-safety-gym": 430.0, "known-optimum": 1700.0},
    "focops": {"bullet-safety-gym": 790.0, "known-optimum": 2900.0},
    "maml_trpo": {"meta": 3000.0},
    "meta_cpo": {"meta": 3100.0},
    "multitask_cpo": {"meta": 2600.0},
    "ppo_lag": {"bullet-safety-gym": 890.0, "known-optimum": 7300.0},
    "sac_lag": {"bullet-safety-gym": 370.0, "known-optimum": 840.0, "safety-gymnasium": 550.0},
    "td3_lag": {"bullet-safety-gym": 480.0, "known-optimum": 1100.0},
    "trpo_lag": {"bullet-safety-gym": 900.0, "known-optimum": 6300.0, "safety-gymnasium": 2100.0},
}
"""Environment steps per second of wall time, by policy and suite, on a machine with two cores.

``python benchmarks/sweep_rates.py`` makes the table from the runs in ``benchmarks/results``.
"""


@dataclass(frozen=True)
class Estimate:
    """About how long a study will take.

    :param each: seconds of a whole run by its name; a run whose speed is unknown is left out.
    :param total: seconds of all that is left to run, one run after the other.
    :param elapsed: seconds until the last run ends, with as many runs side by side as the resources allow;
        ``None`` on a cluster, whose size is unknown.
    :param measured: tasks and policies whose speed is that of finished runs of the study.
    :param assumed: those whose speed is that of :data:`RATES`.
    :param unknown: those of which no speed is known.
    """

    each: Mapping[str, float]
    total: float
    elapsed: float | None
    measured: tuple[str, ...]
    assumed: tuple[str, ...]
    unknown: tuple[str, ...]


def estimate(plan: StudyPlan, states: Mapping[str, RunState]) -> Estimate:
    """The time that the runs of a plan will take which have not finished.

    The steps left are divided by the median speed of the finished runs of the same policy and task in the
    study's folder. Where there are none, the speed is that of :data:`RATES`. There, a policy without a limit
    is taken to be as fast as its counterpart with one.

    :param states: how far each run is, by its name; those that have not finished count, unless
        another process trains them or they have other settings.
    """
    speeds = _finished_speeds(plan, states)
    sources: dict[str, str] = {}
    each: dict[str, float] = {}
    left: list[float] = []
    for run in plan.runs:
        pair = f"{run.config.policy} on {run.config.task}"
        if pair in speeds:
            speed, sources[pair] = statistics.median(speeds[pair]), "measured"
        else:
            known = assumed_speed(run.config)
            sources[pair] = "unknown" if known is None else "assumed"
            if known is None:
                continue
            speed = known
        each[run.name] = run.config.steps / speed
        if states[run.name] in (RunState.NEW, RunState.STARTED, RunState.BROKEN):
            done = _steps_done(plan.folder, run) if states[run.name] is RunState.STARTED else 0
            left.append(max(run.config.steps - done, 0) / speed)
    slots = runs_side_by_side(plan.resources)
    return Estimate(
        each=each,
        total=sum(left),
        elapsed=None if slots is None else _last_end(left, slots),
        **{
            kind: tuple(pair for pair, source in sources.items() if source == kind)
            for kind in ("measured", "assumed", "unknown")
        },
    )


def assumed_speed(config: ExperimentConfig) -> float | None:
    """Environment steps per second in :data:`RATES`; ``None`` where it has none."""
    row = algorithm(config.policy)
    suites = RATES.get(config.policy) or RATES.get(row.constrained_as or "", {})
    return suites.get(suite_of(config.env_id))


def runs_side_by_side(resources: Resources) -> int | None:
    """How many runs this machine runs at a time; ``None`` for a cluster."""
    if resources.address is not None:
        return None
    slots = int((resources.cores or available_cores()) / resources.cpus_per_run)
    if resources.gpus_per_run and torch.cuda.is_available():
        slots = min(slots, int(torch.cuda.device_count() / resources.gpus_per_run))
    return max(slots, 1)


def about(seconds: float) -> str:
    """A time in words, without a precision that an estimate does not have."""
    if seconds < 60:
        return "less than a minute"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 90:
        return f"about {minutes:.0f} min"
    return f"about {hours:.0f} h" if hours < 48 else f"about {hours / 24:.0f} days"


def _finished_speeds(plan: StudyPlan, states: Mapping[str, RunState]) -> dict[str, list[float]]:
    """Steps per second of the finished runs, by policy and task."""
    speeds: dict[str, list[float]] = {}
    for run in plan.runs:
        if states[run.name] is RunState.FINISHED:
            result = read_result(plan.folder / run.name)
            if result["seconds"] > 0:
                pair = f"{run.config.policy} on {run.config.task}"
                speeds.setdefault(pair, []).append(result["env_step"] / result["seconds"])
    return speeds


def _steps_done(folder: Path, run: PlannedRun) -> float:
    """The environment steps of a run that can be continued; 0 if its curve cannot be read."""
    try:
        steps = read_columns(RunFolder(folder / run.name).progress, ["env_step"])[:, 0]
    except RunFolderError:
        return 0.0
    return float(steps[-1]) if len(steps) else 0.0


def _last_end(durations: list[float], slots: int) -> float:
    """When the last run ends, if each begins in the first slot that is free."""
    free = [0.0] * slots
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)
