"""The content of a vector replay buffer as plain arrays and numbers.

Dimensions: ``N`` sub-buffers, ``L`` transitions of the fullest one, ``S`` room of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tianshou.data import Batch

from fsrl_ext.data.buffer import CostVectorReplayBuffer

_COUNTERS = ("_insertion_idx", "_size", "_ep_return", "_ep_len", "_ep_start_idx")


def buffer_state(buffer: CostVectorReplayBuffer) -> dict[str, Any]:
    """What is stored, without the room that is still empty, and where the next transitions go.

    :raises TypeError: if anything stored is not a plain array.
    """
    filled, count = max(len(part) for part in buffer.buffers), buffer.buffer_num
    arrays = {}
    for key, values in buffer._meta.items():
        if not isinstance(values, np.ndarray) or values.dtype == object:
            raise TypeError(f"buffer must hold plain arrays, but its {key!r} is a {type(values).__name__}")
        # A sub-buffer's data start at its first place, whether it has wrapped around or not.
        arrays[key] = values.reshape(count, -1, *values.shape[1:])[:, :filled].copy()
    return {
        "shape": [count, buffer.maxsize // count],
        "arrays": arrays,
        "parts": [
            {name: getattr(part, name) for name in _COUNTERS}
            | {"last_index": part.last_index.copy(), "random": part._random_state.get_state(legacy=False)}
            for part in buffer.buffers
        ],
        "last_index": buffer.last_index.copy(),
        "lengths": buffer._lengths.copy(),
        "episodes": buffer.episodes.state_dict(),
        "random": buffer._random_state.get_state(legacy=False),
    }


def load_buffer_state(buffer: CostVectorReplayBuffer, state: Mapping[str, Any]) -> None:
    """Puts a saved content into an equally large buffer.

    :raises ValueError: for a buffer of another size.
    """
    count, room = buffer.buffer_num, buffer.maxsize // buffer.buffer_num
    if state["shape"] != [count, room]:
        raise ValueError(
            f"buffer must have {state['shape'][0]} parts of {state['shape'][1]} transitions as when it was "
            f"saved, got {count} of {room}"
        )
    meta = Batch()
    for key, rows in state["arrays"].items():
        values = np.zeros((count, room, *rows.shape[2:]), dtype=rows.dtype)
        values[:, : rows.shape[1]] = rows
        meta.__dict__[key] = values.reshape(count * room, *rows.shape[2:])
    buffer._meta = meta
    if state["arrays"]:
        buffer._set_batch_for_children()
    for part, saved in zip(buffer.buffers, state["parts"], strict=True):
        for name in _COUNTERS:
            setattr(part, name, saved[name])
        part.last_index = saved["last_index"].copy()
        part._random_state.set_state(saved["random"])
    buffer.last_index = state["last_index"].copy()
    buffer._lengths = state["lengths"].copy()
    buffer.episodes.load_state_dict(state["episodes"])
    buffer._random_state.set_state(state["random"])
