"""The action spaces of a collector's environments: random actions, and what the environments receive.

Dimensions: ``N`` environments, ``R`` of them step, ``A`` action.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np


class ActionSpaces(list[gym.Space]):
    """Copies of the action space of each environment, which random actions are drawn from.

    The copies belong to the collector. What random actions it draws therefore depends on its seeds alone, and
    not on where the environments run, whether they share a space, or what they draw from it themselves.

    :param spaces: ``N`` spaces.
    """

    def __init__(self, spaces: Sequence[gym.Space]) -> None:
        super().__init__(deepcopy(space) for space in spaces)
        self._low: np.ndarray | None = None
        self._high: np.ndarray | None = None
        first = spaces[0]
        if all(_is_continuous(x) and (x.shape, x.dtype) == (first.shape, first.dtype) for x in spaces):
            self._low, self._high = (np.stack([getattr(x, k) for x in spaces]) for k in ("low", "high"))

    def seed(self, ids: np.ndarray, seeds: Sequence[int | None] | np.ndarray) -> None:
        """Seed the spaces of the environments ``ids [R]``; None leaves a space as it is.

        :param seeds: ``[R]``.
        """
        for i, seed in zip(ids, seeds, strict=True):
            if seed is not None:
                self[i].seed(int(seed))

    def fit(self, action: Any, ids: np.ndarray) -> Any:
        """Clip actions to the boxes of the environments ``ids [R]``, and cast them to the boxes' dtype.

        Scaling in floating point can end just outside of a box. ``benchmarks/throughput.py collect`` measures
        this method, as part of both of our collectors.

        :param action: ``[R, A]``.
        :return: ``[R, A]``, a new array; the actions as they are if the spaces are not boxes of
            floating-point numbers with one shape and dtype.
        """
        if self._low is None or self._high is None or action is None:
            return action
        low, high = self._low, self._high
        if len(ids) < len(self):
            low, high = low[ids], high[ids]
        values = np.asarray(action)
        if values.dtype != low.dtype:
            values = values.astype(low.dtype)
        return np.minimum(np.maximum(values, low), high)

    def check_policy(self, policy_space: gym.Space | None) -> None:
        """Check that a policy acts in these spaces; a difference within float32's rounding is no difference.

        :param policy_space: the policy's space; what is neither a ``Box`` nor ``Discrete`` is not compared.
        :raises ValueError: an environment has a ``Box`` with another shape or other bounds, other discrete
            actions, or a space of the other kind.
        """
        kinds = (gym.spaces.Box, gym.spaces.Discrete)
        if not isinstance(policy_space, kinds):
            return
        for i, space in enumerate(self):
            if not isinstance(space, kinds) or _same(space, policy_space):
                continue
            raise ValueError(
                f"policy.action_space must be that of the environments, got {policy_space}, "
                f"where environment {i} has {space}"
            )


def _is_continuous(space: gym.Space) -> bool:
    return isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)


def _same(one: gym.Space, other: gym.Space) -> bool:
    if not (isinstance(one, gym.spaces.Box) and isinstance(other, gym.spaces.Box)):
        return one == other
    return one.shape == other.shape and all(
        np.array_equal(np.float32(a), np.float32(b))
        for a, b in ((one.low, other.low), (one.high, other.high))
    )
