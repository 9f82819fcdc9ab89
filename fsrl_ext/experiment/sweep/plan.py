"""What a sweep has to run, and with which resources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsrl_ext.experiment.config import ExperimentConfig


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a sweep.

    :param name: the run folder's name below the study's folder; equal settings have equal names.
    :param config: all settings of the run.
    """

    name: str
    config: ExperimentConfig


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the runs of a sweep may use.

    :param cores: processor cores for all runs together, >= 1; ``None`` for those that are available.
    :param cpus_per_run: cores of one run, > 0; runs share a core below 1.
    :param gpus_per_run: GPUs of one run, >= 0; runs share a GPU below 1.
    :param address: of a Ray cluster that was started apart; ``None`` starts Ray on this machine.
    """

    cores: int | None = None
    cpus_per_run: float = 1.0
    gpus_per_run: float = 0.0
    address: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """All runs of a sweep.

    :param folder: the study's folder, which holds a run folder for each run.
    :param runs: with different names.
    :param resources: what the runs may use.
    :param command: the command line or code that made the plan, to note in the runs' results.
    """

    folder: Path
    runs: tuple[PlannedRun, ...]
    resources: Resources
    command: str
