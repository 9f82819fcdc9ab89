"""Whether the episodes of a training last as long as its policy takes them to."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from tianshou.policy import BasePolicy

from fsrl_ext.data import CostCollectStats


class EpisodeLengths:
    """Counts the training episodes that do not last ``policy.max_episode_steps``, and warns once.

    A policy whose config has ``uses_threshold`` turns the limit on the cost of an episode into a cost per
    step, and takes every episode to last until the time limit. So does an on-policy policy in a collect in
    which no episode ends. What an environment says of itself plays no role: the lengths are those that the
    collector counted.

    The warning waits until every environment has taken ``max_episode_steps`` steps, because before that only
    early ends can be seen; in a training of fewer steps it comes with the last collect.

    :param policy: is watched if it has a finite ``cost_limit`` and ``max_episode_steps``.
    :param num_envs: number of training environments.
    """

    def __init__(self, policy: BasePolicy, num_envs: int) -> None:
        self._policy: Any = policy
        self._horizon: int | None = getattr(policy, "max_episode_steps", None)
        self._num_envs = num_envs
        self._steps = self._episodes = self._early = self._late = self._total = 0
        self._assumed = self._warned = False

    def see(self, stats: CostCollectStats, *, assumed: bool = False, last: bool = False) -> None:
        """Count the episodes of a collect, and warn if it is time to.

        :param assumed: whether the policy learns from this collect as if episodes had the full length; its
            ``uses_threshold`` is looked at in any case.
        :param last: whether this is the last collect of the training.
        """
        if self._warned or self._horizon is None:
            return
        self._assumed |= assumed or getattr(getattr(self._policy, "config", None), "uses_threshold", False)
        self._steps += stats.n_collected_steps
        self._episodes += len(stats.lens)
        self._total += int(np.sum(stats.lens))
        self._early += int(np.sum(stats.lens < self._horizon))
        self._late += int(np.sum(stats.lens > self._horizon))
        seen = last or self._steps >= self._num_envs * self._horizon
        if seen and self._assumed and self._constrained and self._early + self._late:
            self._warned = True
            warnings.warn(self._message(self._horizon), stacklevel=2)

    @property
    def _constrained(self) -> bool:
        return any(math.isfinite(limit) for limit in getattr(self._policy, "cost_limit", ()))

    def _message(self, horizon: int) -> str:
        counts = {"ended before": self._early, "lasted longer than": self._late}
        ends = " and ".join(
            f"{count} of {self._episodes} training episodes ({count / self._episodes:.0%}) {what} "
            f"max_episode_steps={horizon}"
            for what, count in counts.items()
            if count
        )
        mean = self._total / self._episodes
        return (
            f"{ends}; the mean length is {mean:.1f} steps. {type(self._policy).__name__} takes episodes to "
            f"last {horizon} steps, so its constraint is "
            f"{'stricter' if mean <= horizon else 'looser'} than cost_limit "
            "(docs/concepts.md, 'Episodes that end early')"
        )
