"""How many processor cores a run uses, which decides where its parts are computed and changes no number."""

from __future__ import annotations

import os
import warnings

from fsrl_ext.experiment.config import ExperimentConfig

SHORT_RUN = 5_000
"""Environment steps below which a run uses one core unless it is told otherwise, because a process takes some
seconds to start."""


def available_cores() -> int:
    """The cores that this process may use, which are fewer than the machine's in many containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_cores(cores: int | None, config: ExperimentConfig) -> int:
    """The number of cores that a run uses.

    :param cores: what the user asked for, >= 1; ``None`` stands for the cores that this process may use, as
        far as the run has work for them, and for one in a run of less than :data:`SHORT_RUN` steps.
    """
    if cores is not None:
        return cores
    return 1 if config.steps < SHORT_RUN else min(available_cores(), config.training.max_cores)


def warn_of_more_processes_than_cores(cores: int, config: ExperimentConfig) -> None:
    """Warns in one line if a run has more busy processes than this process may use cores.

    The process that plays the selections does not count, because it has a lower priority.

    :param cores: what :func:`resolve_cores` returned.
    """
    processes, available = max(cores, config.training.busy_processes(cores)), available_cores()
    if processes > available:
        warnings.warn(
            f"the run has work for {processes} processes at a time (cores={cores}, "
            f"workers={config.training.workers}), and {available} "
            f"{'core is' if available == 1 else 'cores are'} available to it, so it will be slower than with "
            "fewer processes",
            stacklevel=4,
        )
