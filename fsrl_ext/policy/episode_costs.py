"""Costs of the episodes that ended since the last look at a buffer.

Dimension letters: ``N`` environments, ``C`` costs.
"""

from __future__ import annotations

import numpy as np
from tianshou.data import ReplayBuffer, ReplayBufferManager


class FreshEpisodeCosts:
    """Follows what a collector writes and adds up the cost of every episode, each exactly once.

    What the buffer holds at the first look counts as seen: it may be from random actions or from another
    policy. An episode that was closed before its end (a reset of the environments between two looks) does not
    count either. A look has to come before a part of the buffer was overwritten completely.
    """

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._sizes = np.zeros(0, dtype=np.int64)
        self._open = np.zeros((0, 0))

    def pop(self, buffer: ReplayBuffer) -> np.ndarray:
        """Undiscounted costs ``[episodes, C]`` of the episodes that ended since the last call."""
        parts = buffer.buffers if isinstance(buffer, ReplayBufferManager) else [buffer]
        first = self._last is None or len(self._last) != len(parts)
        if first:
            self._last = np.array([-1] * len(parts))
            self._sizes = np.zeros(len(parts), dtype=np.int64)
            self._open = np.zeros((len(parts), buffer.num_costs))
        assert self._last is not None
        ended = []
        for i, (start, part) in enumerate(zip(buffer.subbuffer_edges[:-1], parts, strict=True)):
            size, last = len(part), int(part.last_index[0])
            if size < self._sizes[i]:  # the buffer was emptied
                self._last[i], self._sizes[i], self._open[i] = -1, 0, 0.0
            elif self._sizes[i] and buffer.done[start + self._last[i]]:
                self._open[i] = 0.0  # over, or closed since then
            count = (last - self._last[i]) % part.maxsize if self._sizes[i] else size
            self._last[i], self._sizes[i] = last, size
            if count:
                places = start + (last - count + 1 + np.arange(count)) % part.maxsize
                ended.append(self._add(i, buffer.cost[places], buffer.done[places]))
        return np.concatenate(ended) if ended and not first else np.zeros((0, self._open.shape[1]))

    def _add(self, env: int, costs: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Adds steps ``[steps, C]`` to an open episode; returns what ended, ``[episodes, C]``."""
        total = self._open[env] + costs.cumsum(0, dtype=np.float64)
        ends = total[done]
        self._open[env] = total[-1] - (ends[-1] if len(ends) else 0.0)
        return np.diff(ends, axis=0, prepend=np.zeros((1, costs.shape[1])))
