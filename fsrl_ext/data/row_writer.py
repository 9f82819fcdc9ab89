"""Writing many steps into a cost-aware buffer without making one of Tianshou's batches of each.

Dimensions: ``R`` sub-buffers that get a transition, ``C`` costs.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np

from fsrl_ext.data.buffer import CostBuffer
from fsrl_ext.data.counters import BufferCounters

# The entries of a transition that can be written; a buffer that holds others is refused.
_KEYS = {"obs", "act", "rew", "terminated", "truncated", "done", "obs_next", "cost"}


class RowWriter:
    """Adds transitions as ``buffer.add`` does, and keeps the buffer's counters in arrays meanwhile.

    Use it as a context manager: the buffer's own counters are right again when it closes, also after an
    error. Nobody else may write to the buffer in between. ``benchmarks/throughput.py collect`` measures it,
    as part of the fast collector.

    :param buffer: its arrays must be allocated: something was added before.
    :raises ValueError: the buffer is one that :meth:`can_write` refuses.
    """

    def __init__(self, buffer: CostBuffer) -> None:
        if not self.can_write(buffer):
            raise ValueError("RowWriter needs a buffer with data, plain arrays and no frame stacks")
        self._buffer = buffer
        self._counters = BufferCounters.of(buffer)
        edges = np.asarray(buffer.subbuffer_edges)
        self._offset = edges[:-1]
        self._room = np.diff(edges)
        self._arrays = buffer.arrays

    @staticmethod
    def can_write(buffer: CostBuffer) -> bool:
        """Tell whether the buffer consists of nothing but plain arrays that are allocated already."""
        return (
            buffer.takes_rows
            and buffer._save_obs_next
            and not buffer._save_only_last_obs
            and buffer.stack_num == 1
            and set(buffer.arrays) == _KEYS
            and all(isinstance(x, np.ndarray) for x in buffer.arrays.values())
        )

    def as_stored(self, key: str, values: np.ndarray) -> np.ndarray:
        """Cast float64 ``values [R, ...]`` of the entry ``key`` to the type in which the buffer stores it."""
        kept = self._arrays[key].dtype
        if values.dtype != np.float64 or kept == np.float64:
            return values
        with np.errstate(over="ignore"):  # the check that follows names what has become infinite
            return values.astype(kept)

    def add(self, ids: np.ndarray, **rows: np.ndarray) -> None:
        """Add one transition to each sub-buffer ``ids [R]``, all different.

        :param rows: ``obs``, ``act``, ``rew``, ``terminated``, ``truncated``, ``done``, ``obs_next``, each
            ``[R, ...]``, and ``cost [R, C]``. The caller has checked that they are finite.
        """
        counters = self._counters
        slot = counters.insertion[ids]
        places = slot + self._offset[ids]
        for key, values in rows.items():
            self._arrays[key][places] = values
        following = (slot + 1) % self._room[ids]
        counters.last[ids] = slot
        counters.insertion[ids] = following
        counters.size[ids] = np.minimum(counters.size[ids] + 1, self._room[ids])
        counters.episode_return[ids] += rows["rew"]
        counters.episode_len[ids] += 1
        done = rows["done"]
        if done.any():
            ended = ids[done]
            counters.episode_return[ended] = 0.0
            counters.episode_len[ended] = 0
            counters.episode_start[ended] = following[done]

    def close(self) -> None:
        """Hand the counters back to the buffer."""
        self._counters.write_to(self._buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
