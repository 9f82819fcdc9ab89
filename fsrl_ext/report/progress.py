"""Reads what a run wrote."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.records import RESULT, read_record


def read_progress(folder: Path) -> dict[str, np.ndarray]:
    """The columns of ``progress.csv`` by name, ``[rows]``, NaN where a row has no value.

    :raises RunFolderError: if the folder has none.
    """
    path = RunFolder(Path(folder)).progress
    if not path.is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no {path.name}")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def read_result(folder: Path) -> dict[str, Any]:
    """A run's ``result.json``.

    :raises RunFolderError: if the folder has none, or the file is damaged or edited.
    """
    path = RunFolder(Path(folder)).result
    if not path.is_file():
        raise RunFolderError(f"{folder} has no {path.name}; has the run ended?")
    return read_record(path, RESULT)
