"""Writing many steps into a cost-aware buffer without going through Tianshou's ``Batch`` at each.

Dimensions: ``N`` sub-buffers, ``R`` of them that get a transition, ``C`` costs.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
from tianshou.data import ReplayBuffer

from fsrl_ext.data.buffer import AnyCostBuffer, CostVectorReplayBuffer

# What a transition consists of, besides its observations; everything else a buffer may hold is refused.
_KEYS = {"obs", "act", "rew", "terminated", "truncated", "done", "obs_next", "cost"}


class RowWriter:
    """Adds transitions as ``buffer.add`` does, keeping its counters in arrays meanwhile.

    Use it as a context manager: the buffer's own counters are right again when it closes, also after an
    error. Nobody else may write to the buffer in between.

    :param buffer: its arrays must be allocated: something was added before.
    :raises ValueError: for a buffer that :meth:`can_write` refuses.
    """

    def __init__(self, buffer: AnyCostBuffer) -> None:
        if not self.can_write(buffer):
            raise ValueError("RowWriter needs a buffer with data, plain arrays and no frame stacks")
        self._buffer = buffer
        vector = isinstance(buffer, CostVectorReplayBuffer)
        self._parts: list[ReplayBuffer] = list(buffer.buffers) if vector else [buffer]
        self._offset = np.asarray(buffer._offset) if vector else np.zeros(1, dtype=int)
        self._room = np.array([part.maxsize for part in self._parts])
        self._insertion = np.array([part._insertion_idx for part in self._parts])
        self._size = np.array([len(part) for part in self._parts])
        self._last = np.array([part.last_index[0] for part in self._parts])
        self._ep_return = np.array([part._ep_return for part in self._parts], dtype=float)
        self._ep_len = np.array([part._ep_len for part in self._parts])
        self._ep_start = np.array([part._ep_start_idx for part in self._parts])
        self._arrays = buffer._meta.__dict__

    @staticmethod
    def can_write(buffer: AnyCostBuffer) -> bool:
        """Whether the buffer is one of plain arrays that are allocated already."""
        arrays = buffer._meta.__dict__
        return (
            buffer._save_obs_next
            and not buffer._save_only_last_obs
            and buffer.stack_num == 1
            and set(arrays) == _KEYS
            and all(isinstance(x, np.ndarray) for x in arrays.values())
        )

    def add(self, ids: np.ndarray, **rows: np.ndarray) -> None:
        """Add one transition to each sub-buffer ``ids [R]``, all different.

        :param rows: ``obs``, ``act``, ``rew``, ``terminated``, ``truncated``, ``done``, ``obs_next``, each
            ``[R, ...]``, and ``cost [R, C]``; checked by the caller.
        """
        slot = self._insertion[ids]
        places = slot + self._offset[ids]
        for key, values in rows.items():
            self._arrays[key][places] = values
        following = (slot + 1) % self._room[ids]
        self._last[ids] = slot
        self._insertion[ids] = following
        self._size[ids] = np.minimum(self._size[ids] + 1, self._room[ids])
        self._ep_return[ids] += rows["rew"]
        self._ep_len[ids] += 1
        done = rows["done"]
        if done.any():
            ended = ids[done]
            self._ep_return[ended] = 0.0
            self._ep_len[ended] = 0
            self._ep_start[ended] = following[done]

    def close(self) -> None:
        """Hand the counters back to the buffer."""
        for i, part in enumerate(self._parts):
            part._insertion_idx = int(self._insertion[i])
            part._size = int(self._size[i])
            part.last_index[0] = self._last[i]
            part._ep_return = float(self._ep_return[i])
            part._ep_len = int(self._ep_len[i])
            part._ep_start_idx = int(self._ep_start[i])
        if isinstance(self._buffer, CostVectorReplayBuffer):
            self._buffer.last_index[:] = self._last + self._offset
            self._buffer._lengths[:] = self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
