"""Buffers in HDF5 files that hold arrays and numbers alone.

Tianshou stores whatever is no array as a pickled object, and unpickling a file can run any code. Here the
objects of a buffer are written as the arrays and numbers that they consist of, and a file with a pickled
object is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from tianshou.data import Batch
from tianshou.data.utils.converter import from_hdf5, to_hdf5

from fsrl_ext.data.episodes import EpisodeLog

_KINDS = ("ndarray", "Tensor")
_PACKED = 2000
"""How many times as large as in the file an array may be in memory; gzip packs zeros by a factor of 1000."""


def write_plain(path: str | os.PathLike[str], state: Mapping[str, Any], compression: str | None) -> None:
    """Writes a buffer's state.

    :raises TypeError: for anything stored in the buffer that is no array of numbers; nothing is written.
    """
    plain = _plain(state, "")
    with h5py.File(path, "w") as file:
        to_hdf5(plain, file, compression=compression)


def read_plain(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what :func:`write_plain` wrote.

    :raises ValueError: if the file is no HDF5 file, holds a pickled object or a link to another file, or
        has an array of absurd size; the message names it.
    """
    try:
        with h5py.File(path, "r") as file:
            _check(file, os.fspath(path))
            state: Any = from_hdf5(file)
    except OSError as error:
        if not os.path.isfile(path):
            raise
        raise ValueError(f"{path} is damaged or not an HDF5 file ({str(error).splitlines()[0]})") from error
    return restored(state)


def _plain(state: Mapping[str, Any], part: str) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in state.items():
        here = f"{part}{name}"
        if isinstance(value, np.random.RandomState):
            _, key, position, has_gauss, gauss = value.get_state(legacy=True)
            plain[name] = {"key": key, "position": position, "has_gauss": has_gauss, "gauss": gauss}
        elif isinstance(value, EpisodeLog):
            plain[name] = value.state_dict()
        elif name == "buffers":
            plain[name] = {str(i): _plain(vars(x), f"{here}.{i}.") for i, x in enumerate(value)}
        elif isinstance(value, Batch):
            plain[name] = Batch(_plain(vars(value), f"{here}."))
        elif isinstance(value, dict):
            plain[name] = _plain(value, f"{here}.")
        elif isinstance(value, bool | int | float | np.generic):
            plain[name] = value.item() if isinstance(value, np.generic) else value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            plain[name] = value
        else:
            raise TypeError(
                f"save_hdf5 writes arrays of numbers alone, and {here} is of the type {type(value).__name__}"
            )
    return plain


def _check(group: h5py.Group, path: str) -> None:
    for name in group:
        here = f"{group.name.rstrip('/')}/{name}".lstrip("/")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} holds a link to somewhere else in {here}, which is never followed")
        entry = group[name]
        if isinstance(entry, h5py.Group):
            _check(entry, path)
            continue
        kind = entry.attrs.get("__data_type__")
        if kind not in _KINDS:
            raise ValueError(
                f"{path} holds a pickled object in {here} ({kind}), which is never loaded, because it could "
                "run any code; save the buffer again by the save_hdf5 of this version"
            )
        if entry.dtype.kind not in "biuf" or entry.is_virtual or entry.external:
            raise ValueError(f"{path} holds something else than an array of numbers in {here}")
        if entry.nbytes > _PACKED * (1000 + entry.id.get_storage_size()):
            raise ValueError(f"{path} has an array of absurd size in {here}, {list(entry.shape)}")


def restored(state: dict[str, Any]) -> dict[str, Any]:
    """The state with the objects in the places of what they consist of."""
    plain = {name: x.item() if isinstance(x, np.generic) else x for name, x in state.items()}
    if "_random_state" in plain:
        saved, generator = plain["_random_state"], np.random.RandomState()
        generator.set_state(("MT19937", saved["key"], saved["position"], saved["has_gauss"], saved["gauss"]))
        plain["_random_state"] = generator
    if "episodes" in plain:
        log = EpisodeLog(plain["num_costs"])
        log.load_state_dict(
            {name: x.item() if isinstance(x, np.generic) else x for name, x in plain["episodes"].items()}
        )
        plain["episodes"] = log
    if "options" in plain:
        plain["options"] = {name: x.item() for name, x in plain["options"].items()}
    return plain
