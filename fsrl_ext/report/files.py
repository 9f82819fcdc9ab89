"""Files that are replaced in one move, JSON files, and checks of new files, which never overwrite anything.

JSON has no infinity and no NaN. Files hold the text ``"Infinity"``, ``"-Infinity"`` or ``"NaN"`` in their
place, which Python's ``float`` and JavaScript's ``Number`` understand. The readers here return the numbers.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_NUMBERS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file beside ``path`` for writing, and moves it to ``path`` when the block has ended well.

    The content is on the disk before the move, so a crash at any moment leaves the old file or the new one. A
    block that raises leaves the old file. A symbolic link at ``path`` is replaced, and its target stays as it
    is. A process that is killed may leave the file beside, ``.<name>.<random>.tmp``.

    :raises OSError: if the folder cannot be written or the disk is full.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:  # Ctrl-C, too, leaves half a file
        beside.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    """Writes a folder's list of names to the disk, on the systems that can."""
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, data: Any, *, indent: int = 2) -> None:
    """Writes strict, indented JSON with a final newline, in one move."""
    with replacing(path) as file:
        file.write((json.dumps(in_json(data), indent=indent, allow_nan=False) + "\n").encode())


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
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; nothing was overwritten")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: the folder {path.parent} is read-only")
    return path
