"""Running sums of the episodes that are under way, one per environment.

Dimensions: ``N`` environments, ``R`` of them that stepped, ``E`` finished episodes, ``C`` costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class FinishedEpisodes:
    """Sums over the episodes that ended, in the order of their ends."""

    returns: np.ndarray
    """``[E]`` sum of rewards."""
    lens: np.ndarray
    """``[E]`` number of steps."""
    costs: np.ndarray
    """``[E, C]`` sums of costs."""
    discounted_returns: np.ndarray
    """``[E]`` sum of ``discount^t rew_t``, ``t = 0`` at the episode's first step."""
    discounted_costs: np.ndarray
    """``[E, C]`` sums of ``discount^t cost_t``."""


class EpisodeTracker:
    """Counts what the environments do, so it is right whatever happens to the buffer.

    The buffer forgets the beginning of an open episode when an on-policy trainer clears it, and of
    a long one when it wraps around.

    :param num_envs: number of environments ``N``.
    :param num_costs: number of costs ``C``.
    :param discount: factor per step of the discounted sums; None for 1.
    """

    def __init__(self, num_envs: int, num_costs: int, discount: float | None = None) -> None:
        self.num_costs = num_costs
        self.discount = 1.0 if discount is None else discount
        # columns: reward, costs
        self._sums = np.zeros((num_envs, 1 + num_costs))
        self._discounted = np.zeros((num_envs, 1 + num_costs))
        self._weight = np.ones((num_envs, 1))
        self._lens = np.zeros(num_envs, dtype=int)
        self._finished: list[tuple[int, np.ndarray, np.ndarray]] = []

    def reset(self) -> None:
        """Forget the open episodes of all environments: they were reset."""
        self._start(np.arange(len(self._lens)))

    def step(self, ids: np.ndarray, rew: np.ndarray, cost: np.ndarray, done: np.ndarray) -> None:
        """Add one step of the environments ``ids [R]``.

        :param rew: ``[R]``.
        :param cost: ``[R, C]``.
        :param done: ``[R]`` bool, the episode ended with this step.
        """
        signals = np.concatenate([rew[:, None], cost], axis=1)
        self._lens[ids] += 1
        self._sums[ids] += signals
        if self.discount != 1.0:
            self._discounted[ids] += self._weight[ids] * signals
            self._weight[ids] *= self.discount
        if done.any():
            ended = ids[done]
            discounted = self._sums if self.discount == 1.0 else self._discounted
            self._finished.extend(
                (int(self._lens[i]), self._sums[i].copy(), discounted[i].copy()) for i in ended
            )
            self._start(ended)

    def pop_finished(self) -> FinishedEpisodes:
        """The episodes that ended since the last call."""
        finished, self._finished = self._finished, []
        shape = (len(finished), 1 + self.num_costs)
        sums = np.array([entry[1] for entry in finished]).reshape(shape)
        discounted = np.array([entry[2] for entry in finished]).reshape(shape)
        return FinishedEpisodes(
            returns=sums[:, 0],
            lens=np.array([entry[0] for entry in finished], dtype=int),
            costs=sums[:, 1:],
            discounted_returns=discounted[:, 0],
            discounted_costs=discounted[:, 1:],
        )

    def state_dict(self) -> dict[str, Any]:
        """The open episodes, as arrays."""
        return {name: getattr(self, name).copy() for name in ("_sums", "_discounted", "_weight", "_lens")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        for name, value in state.items():
            setattr(self, name, value.copy())

    def _start(self, ids: np.ndarray) -> None:
        self._sums[ids] = self._discounted[ids] = 0.0
        self._weight[ids] = 1.0
        self._lens[ids] = 0
