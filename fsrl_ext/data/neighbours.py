"""The steps before and after a step, in buffers of several environments.

Dimensions: ``B`` places of transitions.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from fsrl_ext.data.buffer import CostBuffer


class SeveralEnvironments(CostBuffer):
    """A buffer with costs and a sub-buffer for each environment."""

    def prev(self, index: int | np.ndarray) -> np.ndarray:
        """As Tianshou's, whose compiled code takes seconds to compile in every process."""
        place, start, length, newest = self._neighbourhood(index)
        before = start + (place - start - 1) % length
        return start + (before - start + (self.done[before] | (before == newest))) % length

    def next(self, index: int | np.ndarray) -> np.ndarray:
        """As Tianshou's, whose compiled code takes seconds to compile in every process."""
        place, start, length, newest = self._neighbourhood(index)
        return start + (place - start + 1 - (self.done[place] | (place == newest))) % length

    def _compile(self) -> None:
        """Compile nothing: :meth:`prev` and :meth:`next` are not Tianshou's."""

    @abstractmethod
    def _neighbourhood(self, index: int | np.ndarray) -> tuple[np.ndarray, ...]:
        """Return places ``[B]`` and their sub-buffers' first place, number of steps and newest place."""
