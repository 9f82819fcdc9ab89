"""Playing the episodes of selections: at once, or beside the training, so that the verdict comes later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data import CostCollector
from fsrl_ext.trainer.evaluation import evaluate_policy
from fsrl_ext.trainer.player import EpisodePlayer
from fsrl_ext.trainer.selection import Evaluation


@dataclass(frozen=True, kw_only=True)
class PendingSelection:
    """A selection whose verdict is to come.

    :param env_step: environment steps that the policy had been trained for.
    :param epoch: after which the policy is tested.
    :param parameters: of the policy, as :func:`~fsrl_ext.trainer.player.parameters_of` returns them.
    """

    env_step: int
    epoch: int
    parameters: dict[str, Any]


class SelectionEpisodes:
    """Plays the episodes by which a training selects its best policy.

    :param tests: plays the episodes: a collector at once, an :class:`~fsrl_ext.trainer.player.EpisodePlayer`
        while the training goes on; ``None`` if there are no selections.
    :param seeds: one environment seed for each episode.
    :param min_episodes: after so many episodes at least, a selection ends early if it is clear that the
        policy will not be the best; ``None`` plays all of them.
    """

    def __init__(
        self, tests: CostCollector | EpisodePlayer | None, seeds: Sequence[int], min_episodes: int | None
    ) -> None:
        self._tests = tests
        self._seeds = seeds
        self._min_episodes = min_episodes
        self.pending: PendingSelection | None = None
        """The selection whose episodes are being played."""

    @property
    def come_later(self) -> bool:
        """Whether the episodes are played while the training goes on."""
        return isinstance(self._tests, EpisodePlayer)

    def play(
        self,
        *,
        env_step: int,
        cost_limit: tuple[float, ...],
        limit_unit: LimitUnit,
        best: Evaluation | None,
        show_progress: bool,
    ) -> Evaluation:
        """Play the collector's policy now; arguments as for :func:`~fsrl_ext.trainer.evaluate_policy`."""
        assert isinstance(self._tests, CostCollector)
        return evaluate_policy(
            self._tests,
            self._seeds,
            cost_limit=cost_limit,
            limit_unit=limit_unit,
            env_step=env_step,
            show_progress=show_progress,
            what="selection",
            best=best,
            min_episodes=self._min_episodes,
        )

    def begin(
        self,
        candidate: PendingSelection,
        *,
        cost_limit: tuple[float, ...],
        limit_unit: LimitUnit,
        best: Evaluation | None,
        show_progress: bool,
    ) -> None:
        """Begin to play a candidate, which is pending from now on."""
        assert isinstance(self._tests, EpisodePlayer)
        self.pending = candidate
        self._tests.start(
            candidate.parameters,
            self._seeds,
            cost_limit=cost_limit,
            limit_unit=limit_unit,
            env_step=candidate.env_step,
            show_progress=show_progress,
            what="selection",
            best=best,
            min_episodes=self._min_episodes,
        )

    def finish(self) -> tuple[PendingSelection, Evaluation] | None:
        """Wait for the episodes of the pending candidate; ``None`` if there is none."""
        if self.pending is None:
            return None
        assert isinstance(self._tests, EpisodePlayer)
        evaluation = self._tests.finish()
        candidate, self.pending = self.pending, None
        return candidate, evaluation
