"""Statistics of a collection, with the costs of its episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from tianshou.data import CollectStats, SequenceSummaryStats
from tianshou.data.stats import compute_dim_to_summary_stats

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data.episodes import FinishedEpisodes, limited_costs


@dataclass(kw_only=True)
class CostCollectStats(CollectStats):
    """Tianshou's ``CollectStats`` with episode costs; ``E`` finished episodes, ``C`` costs.

    Episodes are in the order in which they finished, which is not the order of the environments where
    episodes can end early; ``env_ids`` tells which environment played which episode.

    Tianshou's loggers write numbers and nested dictionaries of numbers, never arrays. The curves of cost
    ``i`` are therefore ``costs_stat/<i>/mean``, ``std``, ``max`` and ``min``.
    """

    costs: np.ndarray = field(default_factory=lambda: np.zeros((0, 1)))
    """``[E, C]`` undiscounted costs of every finished episode, in the order of ``returns``."""
    env_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    """``[E]`` number of the environment that played each episode, in the order of ``returns``."""
    costs_stat: dict[int, SequenceSummaryStats] | None = None
    """Mean, standard deviation, maximum and minimum per cost; None without a finished episode."""
    discounted_returns: np.ndarray | None = None
    """``[E]`` discounted episode returns; None unless the collector has a ``discount``."""
    discounted_costs: np.ndarray | None = None
    """``[E, C]`` discounted episode costs; None unless the collector has a ``discount``.

    A sum ends with its episode, also where a time limit cut the episode off."""
    open_steps: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=int))
    """``[N]`` steps so far of each environment's episode that is under way; ``[1]``, a zero, for none."""

    @property
    def mean_costs(self) -> np.ndarray:
        """``[C]`` mean episode costs; NaN without a finished episode."""
        if len(self.costs) == 0:
            return np.full(self.costs.shape[1], np.nan)
        return self.costs.mean(axis=0)

    @property
    def mean_cost(self) -> float:
        """Mean episode cost of a single cost signal; NaN without a finished episode.

        :raises ValueError: there are several costs.
        """
        if self.costs.shape[1] != 1:
            raise ValueError(f"mean_cost needs one cost, got {self.costs.shape[1]}: use mean_costs")
        return float(self.mean_costs[0])

    def limited_costs(self, unit: LimitUnit) -> np.ndarray:
        """Return the costs ``[E, C]`` that limits of a unit are compared with.

        :raises ValueError: the unit needs discounted costs, and the collector has no ``discount``.
        """
        discounted = self.discounted_costs
        return limited_costs(self.costs, discounted if len(self.costs) else self.costs, unit)

    def num_above(self, limit: float | Sequence[float], unit: LimitUnit = "episode") -> int:
        """Count the episodes in which any cost exceeds its limit.

        :param limit: see :func:`any_cost_above`.
        :param unit: of the limit.
        """
        return int(any_cost_above(self.limited_costs(unit), limit).sum())

    def share_above(self, limit: float | Sequence[float], unit: LimitUnit = "episode") -> float:
        """Return the share of the episodes in which any cost exceeds its limit; NaN without an episode.

        :param limit: see :func:`any_cost_above`.
        :param unit: of the limit.
        """
        above = any_cost_above(self.limited_costs(unit), limit)
        return float(above.mean()) if len(above) else float("nan")

    def set_episodes(self, episodes: FinishedEpisodes, *, discounted: bool = False) -> None:
        """Take over the episodes that the collector counted, and refresh the summaries.

        :param discounted: whether to report the discounted sums, too.
        """
        self.n_collected_episodes = len(episodes.lens)
        self.returns, self.lens, self.costs = episodes.returns, episodes.lens, episodes.costs
        self.env_ids, self.open_steps = episodes.env_ids, episodes.open_steps
        if discounted:
            self.discounted_returns = episodes.discounted_returns
            self.discounted_costs = episodes.discounted_costs
        self.refresh_all_sequence_stats()

    def multiply_steps(self, steps: int) -> None:
        """Count every transition as so many environment steps."""
        self.n_collected_steps *= steps
        self.lens = self.lens * steps
        self.refresh_all_sequence_stats()

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers and arrays. Summaries are left out: they follow from the arrays."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {k: v for k, v in values.items() if isinstance(v, int | float | np.ndarray)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, and refresh the summaries."""
        for each in fields(self):
            if each.name in state:
                setattr(self, each.name, state[each.name])
        self.refresh_all_sequence_stats()

    @classmethod
    def joined(cls, parts: Sequence[Self], *, n_collected_steps: int) -> Self:
        """Put the episodes of several collects one after the other, with fresh summaries.

        :param parts: at least one.
        :param n_collected_steps: the number of steps that the result reports.
        """
        whole = cls(
            n_collected_steps=n_collected_steps,
            n_collected_episodes=sum(part.n_collected_episodes for part in parts),
            returns=np.concatenate([part.returns for part in parts]),
            lens=np.concatenate([part.lens for part in parts]),
            costs=np.concatenate([part.costs for part in parts]),
            env_ids=np.concatenate([part.env_ids for part in parts]),
            open_steps=np.concatenate([part.open_steps for part in parts]),
        )
        returns = [part.discounted_returns for part in parts if part.discounted_returns is not None]
        costs = [part.discounted_costs for part in parts if part.discounted_costs is not None]
        if len(returns) == len(costs) == len(parts):
            whole.discounted_returns, whole.discounted_costs = np.concatenate(returns), np.concatenate(costs)
        whole.refresh_all_sequence_stats()
        return whole

    def refresh_cost_stats(self) -> None:
        """Recompute ``costs_stat`` from ``costs``."""
        self.costs_stat = compute_dim_to_summary_stats(self.costs.T) if len(self.costs) else None

    def refresh_all_sequence_stats(self) -> None:
        """Recompute all summaries, as Tianshou does at the end of a collection."""
        super().refresh_all_sequence_stats()
        self.refresh_cost_stats()


def any_cost_above(costs: np.ndarray, limit: float | Sequence[float]) -> np.ndarray:
    """Tell for each episode whether any of its costs exceeds its limit, ``[E]`` (bool).

    :param costs: ``[E, C]`` episode costs, in the unit of the limit.
    :param limit: limit of the cost of an episode, one for all costs or one per cost. A cost that is equal to
        its limit does not exceed it.
    :raises ValueError: the number of limits is neither 1 nor ``C``.
    """
    limits, num_costs = np.atleast_1d(np.asarray(limit, dtype=float)), costs.shape[1]
    if limits.shape not in ((1,), (num_costs,)):
        raise ValueError(f"limit must have 1 or {num_costs} entries, got {limits.shape}")
    return (costs > limits).any(axis=1)
