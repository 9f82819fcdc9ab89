"""What a sweep has to run, and with which resources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsrl_ext.errors import check_fields, check_types
from fsrl_ext.experiment.config import ExperimentConfig


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a sweep.

    :param name: the run folder's name below the study's folder; equal settings have equal names.
    :param config: all settings of the run.
    :param label: what the study calls the policy with its settings; empty for the policy's name.
    :param own_settings: texts by name of the settings in which the run differs from the defaults of its
        policy and task, and of the cost limit and the preset.
    """

    name: str
    config: ExperimentConfig
    label: str = ""
    own_settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the runs of a sweep may use.

    :param cores: processor cores for all runs together, >= 1; ``None`` for those that are available.
    :param cpus_per_run: cores of one run, > 0; runs share a core below 1.
    :param gpus_per_run: GPUs of one run, >= 0; runs share a GPU below 1.
    :param address: of a Ray cluster that was started apart; ``None`` starts Ray on this machine.
    :raises ValueError: for values that cannot be used, naming them.
    """

    cores: int | None = None
    cpus_per_run: float = 1.0
    gpus_per_run: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_fields(
            self, at_least_one=("cores",), positive=("cpus_per_run",), non_negative=("gpus_per_run",)
        )
        for name in ("cpus_per_run", "gpus_per_run"):
            value = getattr(self, name)
            if value > 1 and value != int(value):
                raise ValueError(f"{name} must be a whole number where it is above 1, got {value}")
        if self.cores is not None and self.address is None and self.cpus_per_run > self.cores:
            raise ValueError(
                f"cpus_per_run must be at most cores={self.cores}, or no run could begin, "
                f"got {self.cpus_per_run:g}"
            )


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
