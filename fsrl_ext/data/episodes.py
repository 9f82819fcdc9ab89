"""The sums of the episodes that are under way, and the log of those that have finished.

A collector adds up every step in an :class:`EpisodeTracker` of its own, and publishes the episodes that
finished in the :class:`EpisodeLog` of its buffer. This is the one place where episode costs are counted;
policies and trainers read them.

Dimensions: ``N`` environments, ``R`` of them that stepped, ``E`` finished episodes, ``C`` costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.errors import checked, shown


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
    open_steps: np.ndarray
    """``[N]`` steps so far of the episode of each environment that is under way."""


def limited_costs(costs: np.ndarray, discounted_costs: np.ndarray | None, unit: LimitUnit) -> np.ndarray:
    """Return the costs of episodes that limits of a unit are compared with, ``[E, C]``.

    Everything that compares a cost with a limit takes the cost from here.

    :param costs: ``[E, C]`` sums of costs.
    :param discounted_costs: ``[E, C]`` discounted sums; None where nobody counted them.
    :raises ValueError: the unit needs discounted sums, and there are none.
    """
    if unit == "episode":
        return costs
    if discounted_costs is None:
        raise ValueError(
            "limit_unit='discounted' needs the discounted costs of episodes, which a collector counts with "
            "discount=..., the discount of the costs"
        )
    return discounted_costs


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
        self.discounted_costs: np.ndarray | None = np.zeros((0, num_costs))
        """``[E, C]`` discounted costs of these episodes; None if some were played without a discount."""
        self.lens = np.zeros(0, dtype=np.int64)
        """``[E]`` numbers of steps of these episodes."""
        self.steps = np.zeros(1, dtype=np.int64)
        """``[N]`` steps of each environment since the buffer was last emptied, overwritten ones included;
        ``[1]``, a zero, before the first collect."""
        self.open_steps = np.zeros(1, dtype=np.int64)
        """``[N]`` steps so far of each environment's episode that is under way; ``[1]``, a zero, for none."""
        self.first_steps = np.zeros(1, dtype=np.int64)
        """``[N]`` or ``[1]``: what ``open_steps`` was when the buffer was last emptied."""

    def publish(
        self,
        costs: np.ndarray,
        lens: np.ndarray,
        steps: np.ndarray | int = 0,
        *,
        discounted_costs: np.ndarray | None = None,
        open_steps: np.ndarray | None = None,
    ) -> None:
        """Add the episodes of one collect, which may be none, and count the collect.

        :param costs: ``[E, C]`` undiscounted episode costs, in the order in which the episodes ended.
        :param lens: ``[E]`` numbers of steps.
        :param steps: ``[N]`` steps that each environment took in the collect, or one number for all.
        :param discounted_costs: ``[E, C]`` discounted episode costs, if the collector counts them.
        :param open_steps: ``[N]`` steps so far of the episodes that are under way; None for no such episode.
        :raises ValueError: the shapes do not fit.
        """
        if costs.shape != (len(lens), self.costs.shape[1]) or lens.shape != (len(lens),):
            raise ValueError(
                f"costs and lens must have shapes [E, {self.costs.shape[1]}] and [E], "
                f"got {list(costs.shape)} and {list(lens.shape)}"
            )
        if discounted_costs is not None and discounted_costs.shape != costs.shape:
            raise ValueError(
                f"discounted_costs must have the shape {list(costs.shape)} of costs, "
                f"got {list(discounted_costs.shape)}"
            )
        self.cycle += 1
        self.count += len(lens)
        self.steps = self.steps + steps
        self.open_steps = np.zeros(1, dtype=np.int64) if open_steps is None else open_steps.astype(np.int64)
        if len(lens):
            self.costs = np.concatenate([self.costs, costs])[-self.capacity :]
            self.lens = np.concatenate([self.lens, lens])[-self.capacity :]
            if discounted_costs is None or self.discounted_costs is None:
                self.discounted_costs = None
            else:
                both = [self.discounted_costs, discounted_costs]
                self.discounted_costs = np.concatenate(both)[-self.capacity :]

    def limited_costs(self, unit: LimitUnit) -> np.ndarray:
        """Return the costs ``[E, C]`` that limits of a unit are compared with, see :func:`limited_costs`."""
        return limited_costs(self.costs, self.discounted_costs, unit)

    def since(self, count: int, unit: LimitUnit = "episode") -> tuple[np.ndarray, np.ndarray]:
        """Return costs ``[E, C]`` and lengths ``[E]`` of the episodes that finished after ``count`` others.

        :param count: the value of :attr:`count` at an earlier look. A number larger than :attr:`count` comes
            from another log; all episodes that are kept are then returned.
        :param unit: of the costs, see :func:`limited_costs`.
        :raises ValueError: the unit needs discounted costs, and a collector did not count them.
        """
        new = self.count - count if count <= self.count else len(self.lens)
        first = max(len(self.lens) - new, 0)
        return self.limited_costs(unit)[first:].copy(), self.lens[first:].copy()

    def close_episodes(self, *, empty: bool) -> None:
        """Forget the episodes that are under way, because the environments are reset.

        :param empty: whether the buffer holds no steps.
        """
        self.open_steps = np.zeros(1, dtype=np.int64)
        if empty:
            self.first_steps = self.open_steps

    def clear(self) -> None:
        """Forget the episodes, because the buffer is emptied. :attr:`cycle` and :attr:`count` stay."""
        self.costs, self.lens = self.costs[:0], self.lens[:0]
        self.discounted_costs = self.costs
        self.steps = np.zeros(1, dtype=np.int64)
        self.first_steps = self.open_steps

    def state_dict(self) -> dict[str, Any]:
        """Return the counters and the episodes that are kept, as numbers and arrays."""
        return {
            "cycle": self.cycle,
            "count": self.count,
            "costs": self.costs.copy(),
            "lens": self.lens.copy(),
            "steps": self.steps.copy(),
            "open_steps": self.open_steps.copy(),
            "first_steps": self.first_steps.copy(),
            **({} if self.discounted_costs is None else {"discounted_costs": self.discounted_costs.copy()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.cycle, self.count = state["cycle"], state["count"]
        self.costs, self.lens = state["costs"].copy(), state["lens"].copy()
        self.steps = state["steps"].copy()
        # Files from before logs had them: the episodes under way then count from the first stored step.
        nothing = np.zeros(1, dtype=np.int64)
        self.open_steps, self.first_steps = (
            state.get(name, nothing).copy() for name in ("open_steps", "first_steps")
        )
        discounted = state.get("discounted_costs", None if len(self.lens) else self.costs)
        self.discounted_costs = None if discounted is None else discounted.copy()


class EpisodeTracker:
    """Adds up rewards, costs and steps of the episodes that are under way, one per environment.

    The tracker sees what the environments do, so its sums are right whatever happens to the buffer. The
    buffer itself loses the beginning of an open episode when an on-policy trainer empties it, and that of a
    long episode when it wraps around.

    :param num_envs: number of environments ``N``.
    :param num_costs: number of costs ``C``.
    :param discount: factor per step of the discounted sums, one number or one for each of reward and costs;
        None stands for 1.
    :raises ValueError: there is neither one discount nor ``1 + C``.
    """

    def __init__(
        self, num_envs: int, num_costs: int, discount: float | Sequence[float] | None = None
    ) -> None:
        self.num_costs = num_costs
        factors = np.atleast_1d(np.asarray(1.0 if discount is None else discount, dtype=float))
        if factors.shape not in ((1,), (1 + num_costs,)):
            raise ValueError(
                f"discount must be one number or {1 + num_costs}, for reward and costs, got {shown(discount)}"
            )
        self._factors = factors
        self._discounts = bool((factors != 1.0).any())
        # The columns are the reward and the costs.
        self._sums = np.zeros((num_envs, 1 + num_costs))
        self._discounted = np.zeros((num_envs, 1 + num_costs))
        self._weight = np.ones((num_envs, len(factors)))
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
        if self._discounts:
            self._discounted[ids] += self._weight[ids] * signals
            self._weight[ids] *= self._factors
        if done.any():
            ended = ids[done]
            discounted = self._discounted if self._discounts else self._sums
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
            open_steps=self._lens.copy(),
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
        # Files from before each signal had a discount of its own have one column.
        self._weight = np.broadcast_to(state["weight"], self._weight.shape).copy()
        self._lens = state["lens"].copy()

    def _start(self, ids: np.ndarray) -> None:
        self._sums[ids] = self._discounted[ids] = 0.0
        self._weight[ids] = 1.0
        self._lens[ids] = 0
