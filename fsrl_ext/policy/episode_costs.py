"""Costs of the episodes that ended since the last look at a buffer.

Dimension letters: ``N`` environments, ``T`` steps, ``E`` episodes, ``C`` costs.
"""

from __future__ import annotations

from typing import NamedTuple

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


class EndedEpisodes(NamedTuple):
    """Episodes that ended within on-policy data."""

    costs: np.ndarray
    """``[E, C]`` undiscounted."""
    lens: np.ndarray
    """``[E]`` steps."""


class RolloutEpisodes:
    """Adds up the episodes of on-policy data, although the buffer is emptied after every look.

    An episode that the last look left open goes on if the new data starts where the old ended; otherwise
    the environment was reset in between, and the open part does not count.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[np.ndarray, int, np.ndarray]] = {}

    def pop(self, buffer: ReplayBuffer, indices: np.ndarray) -> EndedEpisodes:
        """Episodes that ended in the transitions ``indices [T]``, each environment's in order of time."""
        edges = getattr(buffer, "subbuffer_edges", np.array([0, buffer.maxsize]))
        env = np.searchsorted(edges, indices, side="right") - 1
        costs, lens = [np.zeros((0, buffer.num_costs))], [np.zeros(0, dtype=np.int64)]
        for i in np.unique(env):
            places = indices[env == i]
            cost, length, ended_at = self._open.get(i, (np.zeros(buffer.num_costs), 0, None))
            if ended_at is None or not np.array_equal(buffer.obs[places[0]], ended_at):
                cost, length = np.zeros(buffer.num_costs), 0
            ends = np.flatnonzero(buffer.done[places])
            totals = cost + buffer.cost[places].cumsum(0, dtype=np.float64)
            costs.append(np.diff(totals[ends], axis=0, prepend=np.zeros((1, buffer.num_costs))))
            lens.append(np.diff(length + ends + 1, prepend=0))
            rest, steps = totals[-1], length + len(places)
            if len(ends):
                rest, steps = rest - totals[ends[-1]], len(places) - 1 - int(ends[-1])
            if buffer.done[places[-1]]:
                self._open.pop(i, None)
            else:
                self._open[i] = (rest, steps, buffer.obs_next[places[-1]].copy())
        return EndedEpisodes(np.concatenate(costs), np.concatenate(lens))
