"""Whether the module that a saved task names may be imported: its code is not part of the saved run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fsrl_ext.errors import CheckpointError


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


def resume_command(folder: Path, *, allow_import: bool) -> str:
    """The command that goes on with a run.

    :param allow_import: whether the run's task is ``"module:id"``.
    """
    return f"fsrl-ext resume {shlex.quote(str(folder))}{' --allow-import' if allow_import else ''}"
