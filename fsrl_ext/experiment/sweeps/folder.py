"""The layout of a study's folder: run folders, the logs of their processes, and what was set aside."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from fsrl_ext.report.folder import RunFolder

LOG_TAIL = 5
"""Lines of the log of a failed run that are shown."""
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class StudyFolder:
    """The paths in a study's folder, whether the files exist or not.

    :param path: of the folder.
    """

    path: Path

    def run(self, name: str) -> RunFolder:
        """The folder of a run."""
        return RunFolder(self.path / name)

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.path / "logs"

    def log(self, name: str) -> Path:
        """What the processes of a run printed, warnings and errors among it."""
        return self.logs / f"{name}.log"

    def end_of_log(self, name: str) -> str:
        """The last :data:`LOG_TAIL` lines of a run's log; empty without a log."""
        try:
            with self.log(name).open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join([line for line in lines if line.strip()][-LOG_TAIL:])

    def set_aside(self, name: str) -> Path:
        """Renames the folder of a run that cannot be continued to ``<name>.broken-<count>``.

        Its ``config.json`` becomes ``config.json.broken``, so that tables and plots of the study do not take
        the folder for a run.

        :return: the new path.
        """
        folder = self.run(name)
        for count in itertools.count(1):
            target = self.path / f"{name}.broken-{count}"
            if not os.path.lexists(target):
                break
        folder.path.rename(target)
        config = RunFolder(target).config
        if os.path.lexists(config):
            config.rename(config.with_name(f"{config.name}.broken"))
        return target
