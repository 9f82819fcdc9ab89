"""The one door to the private counters of Tianshou's replay buffers.

Tianshou has no public way to say where a buffer's next transition goes. Writing rows quickly, restoring a
saved buffer and closing episodes need one, and they read and write the counters here.

Dimension: ``N`` sub-buffers, 1 for a buffer without sub-buffers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from tianshou.data import ReplayBuffer, ReplayBufferManager


@dataclass(kw_only=True)
class BufferCounters:
    """The counters of each sub-buffer. Places are counted from the sub-buffer's own first place."""

    insertion: np.ndarray
    """``[N]`` place of the next transition."""
    size: np.ndarray
    """``[N]`` number of transitions."""
    last: np.ndarray
    """``[N]`` place of the newest transition, 0 without any."""
    episode_return: np.ndarray
    """``[N]`` (float64) return so far of the episode that is under way."""
    episode_len: np.ndarray
    """``[N]`` number of steps of that episode so far."""
    episode_start: np.ndarray
    """``[N]`` place of the first transition of that episode."""

    @classmethod
    def of(cls, buffer: ReplayBuffer) -> Self:
        """Copy the counters of a buffer."""
        parts = _parts(buffer)
        return cls(
            insertion=np.array([part._insertion_idx for part in parts]),
            size=np.array([part._size for part in parts]),
            last=np.array([part.last_index[0] for part in parts]),
            episode_return=np.array([part._ep_return for part in parts], dtype=float),
            episode_len=np.array([part._ep_len for part in parts]),
            episode_start=np.array([part._ep_start_idx for part in parts]),
        )

    def start_episodes(self) -> None:
        """Let a new episode begin with the next transition of every sub-buffer."""
        self.episode_return[:], self.episode_len[:] = 0.0, 0
        self.episode_start[:] = self.insertion

    def write_to(self, buffer: ReplayBuffer) -> None:
        """Make these the counters of a buffer with ``N`` sub-buffers."""
        for i, part in enumerate(_parts(buffer)):
            part._insertion_idx = int(self.insertion[i])
            part._size = int(self.size[i])
            part.last_index = self.last[i : i + 1].copy()
            part._ep_return = float(self.episode_return[i])
            part._ep_len = int(self.episode_len[i])
            part._ep_start_idx = int(self.episode_start[i])
        if isinstance(buffer, ReplayBufferManager):
            buffer.last_index = self.last + buffer._offset
            buffer._lengths = self.size.copy()


def sampling_state(buffer: ReplayBuffer) -> list[dict[str, Any]]:
    """Return the states of the random number generators of a buffer and of its sub-buffers."""
    return [part._random_state.get_state(legacy=False) for part in _with_parts(buffer)]


def load_sampling_state(buffer: ReplayBuffer, states: list[dict[str, Any]]) -> None:
    """Take over what :func:`sampling_state` returned for a buffer with as many sub-buffers."""
    for part, state in zip(_with_parts(buffer), states, strict=True):
        part._random_state.set_state(state)


def _parts(buffer: ReplayBuffer) -> list[ReplayBuffer]:
    return list(buffer.buffers) if isinstance(buffer, ReplayBufferManager) else [buffer]


def _with_parts(buffer: ReplayBuffer) -> list[ReplayBuffer]:
    return [buffer, *(buffer.buffers if isinstance(buffer, ReplayBufferManager) else [])]
