"""The sums of the episodes that are under way, and the log of those that have finished.

A collector adds up every step in an :class:`EpisodeTracker` of its own, and publishes the episodes that
finished in the :class:`EpisodeLog` of its buffer. This is the one place where episode costs are counted;
policies and trainers read them.

Dimensions: ``N`` environments, ``R`` of them that stepped, ``E`` finished episodes, ``C`` costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fsrl_ext.errors import checked


@dataclass(frozen=True, kw_only=True)
class FinishedEpisodes:
    """Sums over the episodes that finished, in the order in which they did."""

    returns: np.ndarray
    """``[E]`` sum of rewards."""
    lens: np.ndarray
    """``[E]`` number of steps."""
    costs: np.ndarray
    """``[E, C]`` sums of costs."""
    env_ids: np.ndarray
    """``[E]`` number of the environment that played the episode."""
    discounted_returns: np.ndarray
    """``[E]`` sum of ``discount^t rew_t``, ``t = 0`` at the episode's first step."""
    discounted_costs: np.ndarray
    """``[E, C]`` sums of ``discount^t cost_t``."""
    steps: np.ndarray
    """``[N]`` steps of each environment since the last time, in finished episodes and in others."""


class EpisodeLog:
    """The finished episodes that a collector reports to the policies that learn from its buffer.

    The collector publishes here at the end of every collect, and policies read. The costs are the collector's
    own sums, so they are complete whatever the buffer still holds of an episode.

    :param num_costs: number of costs ``C``.
    """

    capacity: ClassVar[int] = 10_000
    """The log keeps at most this many episodes, the newest."""

    @checked(at_least_one=("num_costs",))
    def __init__(self, num_costs: int) -> None:
        self.cycle = 0
        """Number of collects that were written into the buffer so far; emptying the buffer keeps it."""
        self.count = 0
        """Number of episodes that have finished so far; emptying the buffer keeps it."""
        self.costs = np.zeros((0, num_costs))
        """``[E, C]`` (float64) undiscounted costs of the episodes since the buffer was last emptied."""
        self.lens = np.zeros(0, dtype=np.int64)
        """``[E]`` numbers of steps of these episodes."""
        self.steps = np.zeros(1, dtype=np.int64)
        """``[N]`` steps of each environment since the buffer was last emptied, overwritten ones included;
        ``[1]``, a zero, before the first collect."""

    def publish(self, costs: np.ndarray, lens: np.ndarray, steps: np.ndarray | int = 0) -> None:
        """Add the episodes of one collect, which may be none, and count the collect.

        :param costs: ``[E, C]`` undiscounted episode costs, in the order in which the episodes ended.
        :param lens: ``[E]`` numbers of steps.
        :param steps: ``[N]`` steps that each environment took in the collect, or one number for all.
        :raises ValueError: the shapes do not fit.
        """
        if costs.shape != (len(lens), self.costs.shape[1]) or lens.shape != (len(lens),):
            raise ValueError(
                f"costs and lens must have shapes [E, {self.costs.shape[1]}] and [E], "
                f"got {list(costs.shape)} and {list(lens.shape)}"
            )
        self.cycle += 1
        self.count += len(lens)
        self.steps = self.steps + steps
        if len(lens):
            self.costs = np.concatenate([self.costs, costs])[-self.capacity :]
            self.lens = np.concatenate([self.lens, lens])[-self.capacity :]

    def since(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return costs ``[E, C]`` and lengths ``[E]`` of the episodes that finished after ``count`` others.

        :param count: the value of :attr:`count` at an earlier look. A number larger than :attr:`count` comes
            from another log; all episodes that are kept are then returned.
        """
        new = self.count - count if count <= self.count else len(self.lens)
        first = max(len(self.lens) - new, 0)
        return self.costs[first:].copy(), self.lens[first:].copy()

    def clear(self) -> None:
        """Forget the episodes, because the buffer is emptied. :attr:`cycle` and :attr:`count` stay."""
        self.costs, self.lens = self.costs[:0], self.lens[:0]
        self.steps = np.zeros(1, dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        """Return the counters and the episodes that are kept, as numbers and arrays."""
        return {
            "cycle": self.cycle,
            "count": self.count,
            "costs": self.costs.copy(),
            "lens": self.lens.copy(),
            "steps": self.steps.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.cycle, self.count = state["cycle"], state["count"]
        self.costs, self.lens = state["costs"].copy(), state["lens"].copy()
        self.steps = state["steps"].copy()


class EpisodeTracker:
    """Adds up rewards, costs and steps of the episodes that are under way, one per environment.

    The tracker sees what the environments do, so its sums are right whatever happens to the buffer. The
    buffer itself loses the beginning of an open episode when an on-policy trainer empties it, and that of a
    long episode when it wraps around.

    :param num_envs: number of environments ``N``.
    :param num_costs: number of costs ``C``.
    :param discount: factor per step of the discounted sums; None stands for 1.
    """

    def __init__(self, num_envs: int, num_costs: int, discount: float | None = None) -> None:
        self.num_costs = num_costs
        self.discount = 1.0 if discount is None else discount
        # The columns are the reward and the costs.
        self._sums = np.zeros((num_envs, 1 + num_costs))
        self._discounted = np.zeros((num_envs, 1 + num_costs))
        self._weight = np.ones((num_envs, 1))
        self._lens = np.zeros(num_envs, dtype=int)
        self._steps = np.zeros(num_envs, dtype=int)
        self._finished: list[tuple[int, int, np.ndarray, np.ndarray]] = []

    def reset(self) -> None:
        """Forget the open episodes of all environments, which were reset."""
        self._start(np.arange(len(self._lens)))

    def step(self, ids: np.ndarray, rew: np.ndarray, cost: np.ndarray, done: np.ndarray) -> None:
        """Add one step of the environments ``ids [R]``.

        :param rew: ``[R]``.
        :param cost: ``[R, C]``.
        :param done: ``[R]`` (bool) whether the episode ended with this step.
        """
        signals = np.concatenate([rew[:, None], cost], axis=1)
        self._lens[ids] += 1
        self._steps[ids] += 1
        self._sums[ids] += signals
        if self.discount != 1.0:
            self._discounted[ids] += self._weight[ids] * signals
            self._weight[ids] *= self.discount
        if done.any():
            ended = ids[done]
            discounted = self._sums if self.discount == 1.0 else self._discounted
            self._finished.extend(
                (int(i), int(self._lens[i]), self._sums[i].copy(), discounted[i].copy()) for i in ended
            )
            self._start(ended)

    def pop_finished(self) -> FinishedEpisodes:
        """Return the episodes that finished since the last call, and forget them and all steps."""
        finished, self._finished = self._finished, []
        steps, self._steps = self._steps, np.zeros_like(self._steps)
        shape = (len(finished), 1 + self.num_costs)
        sums = np.array([entry[2] for entry in finished]).reshape(shape)
        discounted = np.array([entry[3] for entry in finished]).reshape(shape)
        return FinishedEpisodes(
            returns=sums[:, 0],
            lens=np.array([entry[1] for entry in finished], dtype=int),
            costs=sums[:, 1:],
            env_ids=np.array([entry[0] for entry in finished], dtype=int),
            discounted_returns=discounted[:, 0],
            discounted_costs=discounted[:, 1:],
            steps=steps,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the open episodes' sums, lengths and discounts as arrays."""
        return {
            "sums": self._sums.copy(),
            "discounted": self._discounted.copy(),
            "weight": self._weight.copy(),
            "lens": self._lens.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._sums, self._discounted = state["sums"].copy(), state["discounted"].copy()
        self._weight, self._lens = state["weight"].copy(), state["lens"].copy()

    def _start(self, ids: np.ndarray) -> None:
        self._sums[ids] = self._discounted[ids] = 0.0
        self._weight[ids] = 1.0
        self._lens[ids] = 0
