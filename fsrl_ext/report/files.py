"""JSON files, and checks of new files, which never overwrite what is there.

JSON has no infinity and no NaN. Files hold the text ``"Infinity"``, ``"-Infinity"`` or ``"NaN"`` in their
place, which Python's ``float`` and JavaScript's ``Number`` understand. The readers here return the numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NUMBERS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def write_json(path: Path, data: Any, *, indent: int = 2) -> None:
    """Writes strict, indented JSON with a final newline."""
    path.write_text(json.dumps(in_json(data), indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads what :func:`write_json` wrote, and the bare ``Infinity`` and ``NaN`` of version 0.1.0."""
    return from_json(json.loads(path.read_text()))


def in_json(data: Any) -> Any:
    """A copy of plain data with text for numbers that are not finite, and lists for tuples."""
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, Mapping):
        return {key: in_json(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [in_json(value) for value in data]
    return data


def from_json(data: Any) -> Any:
    """The inverse of :func:`in_json`; data with the numbers themselves stay as they are."""
    if isinstance(data, str):
        return _NUMBERS.get(data, data)
    if isinstance(data, Mapping):
        return {key: from_json(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [from_json(value) for value in data]
    return data


def check_new_file(path: str | os.PathLike[str], suffixes: Sequence[str] = ()) -> Path:
    """The path, checked before the work whose result it is to hold.

    :param suffixes: the allowed ones, such as ``.mp4``; none for any.
    :raises ValueError: if the suffix is another, the file exists already, or its folder does not.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join(suffixes)}")
    if path.exists():
        raise ValueError(f"{path} exists already; nothing was overwritten")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")
    return path
