"""Whether code that saved settings name may be imported: it is not part of the saved run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment.network_path import was_used
from fsrl_ext.experiment.training_config import OWN_NETWORKS, TrainingConfig


def check_import(task: str, source: Path, *, allow_import: bool) -> None:
    """Checks that building a saved task imports no module that the caller has not allowed.

    A module that this process has imported already needs no permission.

    :param task: an environment id; ``"module:id"`` imports the module.
    :param source: the file that names the task.
    :raises CheckpointError: naming the module and the way to allow it.
    """
    module = task.rpartition(":")[0]
    if module and not allow_import and module not in sys.modules:
        raise CheckpointError(
            f"{source} names the task {task!r}, which would import the module {module} and run its code; "
            "if you trust it, allow that by --allow-import (in Python: allow_import=True, or import it first)"
        )


def check_networks(training: TrainingConfig, source: Path, *, allow_import: bool) -> None:
    """Checks that building saved networks runs no code of a user's that the caller has not allowed.

    A function that this process has trained with, or was given, needs no permission. That its module is
    imported is not enough, because a file could name a function of any module.

    :param source: the file that names the functions.
    :raises CheckpointError: naming the function and the way to allow it.
    """
    for name in OWN_NETWORKS:
        path = getattr(training, name)
        if path is not None and not allow_import and not was_used(path):
            raise CheckpointError(
                f"{source} names the {name} {path!r}, whose code would run; if you trust it, allow that by "
                "--allow-import (in Python: allow_import=True)"
            )


def resume_command(folder: Path, *, allow_import: bool) -> str:
    """The command that goes on with a run.

    :param allow_import: whether the run's settings name modules of the user's.
    """
    return f"fsrl-ext resume {shlex.quote(str(folder))}{' --allow-import' if allow_import else ''}"
