"""New files, which never overwrite what is there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Writes indented JSON with a final newline."""
    path.write_text(json.dumps(data, indent=2) + "\n")


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
