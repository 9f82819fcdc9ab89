"""What the page reads of a run beyond what the tables and figures of a study need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.files import read_json
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.progress import read_columns
from fsrl_ext.report.study.grid import Points
from fsrl_ext.report.study.run import StudyRun


@dataclass(frozen=True)
class Origin:
    """What made a run, as its ``result.json`` or its result file notes it.

    :param command: empty where it was not noted.
    :param versions: of the packages, by name.
    """

    command: str
    versions: Mapping[str, str]


def read_origin(run: StudyRun) -> Origin:
    """Reads what made a run.

    :raises RunFolderError: if the file holds something else there.
    """
    path = RunFolder(run.path).result if run.path.is_dir() else run.path
    data = read_json(path)
    command, versions = data.get("command", ""), data.get("versions", {})
    if not isinstance(command, str) or not isinstance(versions, dict):
        raise RunFolderError(f"{path} is damaged: command or versions are of another kind")
    return Origin(command, {str(name): str(value) for name, value in versions.items()})


def read_logged(run: StudyRun, columns: Sequence[str]) -> dict[str, Points]:
    """Reads what a run logged of its updates over environment steps; a result file has nothing.

    :param columns: of ``progress.csv``, without ``update/``.
    :return: the finite values of the columns that have some.
    :raises RunFolderError: if the file is damaged.
    """
    if not run.path.is_dir():
        return {}
    names = ["env_step", *(f"update/{column}" for column in columns)]
    table = read_columns(RunFolder(run.path).progress, names)
    ones = np.ones(len(table))
    logged = {column: Points(table[:, 0], table[:, 1 + i], ones).finite() for i, column in enumerate(columns)}
    return {column: points for column, points in logged.items() if len(points.x)}
