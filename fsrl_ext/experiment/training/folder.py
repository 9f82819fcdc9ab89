"""Makes the folder of a new run, tidies that of a resumed one, and names what cannot be written."""

from __future__ import annotations

import contextlib
import errno
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from fsrl_ext.errors import RunFolderError, RunStoppedError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.report import read_result
from fsrl_ext.report.folder import RunFolder

_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "mount the file system for writing",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.ENOENT: "the folder was removed or renamed",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


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


def remove_leftovers(folder: RunFolder) -> None:
    """Removes the unfinished files that a killed process left."""
    for place in (folder.path, folder.checkpoints):
        for path in place.glob(".*.tmp"):
            if re.fullmatch(r"\..+\.[0-9a-f]{16}\.tmp", path.name):
                path.unlink(missing_ok=True)


def has_finished(folder: RunFolder) -> bool:
    """Whether a run has its verdict, and nothing is left to do.

    :raises RunFolderError: if its ``result.json`` is damaged.
    """
    if folder.snapshot.is_file() or not folder.result.is_file():
        return False
    return read_result(folder.path).get("status") == "finished"


def empty_run_folder(folder: RunFolder) -> None:
    """Removes what a run without policies wrote after its ``config.json``, but for TensorBoard's events."""
    for path in (folder.progress, folder.result, folder.curves):
        path.unlink(missing_ok=True)
    folder.checkpoints.mkdir(exist_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write a file into an error that names the file and the remedy.

    :raises RunStoppedError: if the block raises ``OSError``, or the ``RuntimeError`` of ``torch.save``.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise RunStoppedError(f"{path} cannot be written: {write_failure(error)}") from error


def write_failure(error: BaseException) -> str:
    """The reason and the remedy of a failure to write a file.

    ``torch.save`` hides the operating system's error behind one of its own.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or cause.errno is None:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    remedy = _REMEDIES.get(cause.errno)
    return f"{cause.strerror}" + (f"; {remedy}" if remedy else "")
