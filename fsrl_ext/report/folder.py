"""The layout of a run folder: the one place that knows the names of its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fsrl_ext.zoo.policies import PREFIX, zoo_file

Which = Literal["best", "last"]


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run folder, whether the files exist or not.

    :param path: of the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The settings of the run, as JSON."""
        return self.path / "config.json"

    @property
    def progress(self) -> Path:
        """The curves, one row per environment step that something was logged for."""
        return self.path / "progress.csv"

    @property
    def tensorboard(self) -> Path:
        """The folder of the TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The folder of the saved policies."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The best feasible policy."""
        return self.checkpoints / "best.pt"

    @property
    def last(self) -> Path:
        """The newest policy."""
        return self.checkpoints / "last.pt"

    @property
    def snapshot(self) -> Path:
        """What a run that was cut off goes on from; a finished run has none."""
        return self.checkpoints / "resume.pt"

    @property
    def lock(self) -> Path:
        """A file that is locked while a process trains the run."""
        return self.path / ".lock"

    @property
    def result(self) -> Path:
        """The outcome of the run, as JSON; it exists when the run has ended."""
        return self.path / "result.json"

    @property
    def curves(self) -> Path:
        """The picture of the curves."""
        return self.path / "curves.png"


def checkpoint_file(run: str | os.PathLike[str], checkpoint: Which = "best") -> Path:
    """The file of a run folder's best or last policy; a path that is no folder is the file itself.

    :param run: a run folder, a checkpoint file, or ``zoo:NAME``.
    :raises ValueError: for another ``checkpoint`` than these two.
    :raises CheckpointError: for a name that the zoo does not have.
    """
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint must be 'best' or 'last', got {checkpoint!r}")
    if os.fspath(run).startswith(PREFIX):
        return zoo_file(os.fspath(run))
    path = Path(run)
    if not path.is_dir():
        return path
    folder = RunFolder(path)
    return folder.best if checkpoint == "best" else folder.last
