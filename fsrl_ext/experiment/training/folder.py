"""Makes the folder of a new run."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.report.folder import RunFolder


def new_run_folder(out: Path, config: ExperimentConfig, run_name: str | None) -> RunFolder:
    """Makes a fresh folder ``<task>-<policy>-seed<seed>-<counter>`` (or ``run_name``) below ``out``.

    :raises RunFolderError: if ``run_name`` is not a plain name or is taken, or ``out`` cannot hold folders.
    """
    if run_name is not None:
        if not re.fullmatch(r"[\w.=+-]+", run_name) or run_name in (".", ".."):
            raise RunFolderError(
                f"run_name must be a plain folder name (letters, digits, . _ = + -), got {run_name!r}"
            )
        names = iter([run_name])
    else:
        stem = f"{config.task.replace(':', '-')}-{config.policy}-seed{config.seed}"
        names = (f"{stem}-{count}" for count in itertools.count(1))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder = RunFolder(out / name)
            try:
                folder.path.mkdir()
            except FileExistsError:
                continue
            folder.checkpoints.mkdir()
            return folder
    except OSError as error:
        raise RunFolderError(f"cannot make a run folder in {out}: {error.strerror}") from error
    raise RunFolderError(f"run_name {run_name!r} exists already in {out}; nothing was overwritten")
