"""On-policy training with costs on Tianshou's loop."""

from __future__ import annotations

from typing import Any

from tianshou.data import CollectStatsBase
from tianshou.policy.base import TrainingStats
from tianshou.trainer import OnpolicyTrainer

from fsrl_ext.data import CostCollector, CostCollectStats, RayCollector
from fsrl_ext.data.sizes import round_up
from fsrl_ext.errors import checked
from fsrl_ext.trainer.cost_trainer import CostTrainer
from fsrl_ext.trainer.metrics import MetricMean


class CostOnpolicyTrainer(CostTrainer, OnpolicyTrainer):
    """Tianshou's on-policy trainer for policies with a cost limit.

    Every update learns from one whole collect, which then leaves the buffer. An epoch holds whole collects:
    it is ``step_per_epoch`` rounded up to the next multiple of ``step_per_collect``.

    :param step_per_collect: environment steps of a collect, rounded up to whole vector steps.
    :param repeat_per_collect: passes over the data of a collect.
    :param batch_size: transitions of a minibatch; ``None`` for all at once.
    :param arguments: those of :class:`~fsrl_ext.trainer.cost_trainer.CostTrainer`.
    :raises ValueError: the buffer is too small for a collect, or a number is too small.
    """

    @checked(at_least_one=("step_per_epoch", "step_per_collect", "repeat_per_collect", "action_repeat"))
    def __init__(
        self,
        *,
        train_collector: CostCollector | RayCollector,
        step_per_epoch: int,
        step_per_collect: int,
        repeat_per_collect: int,
        action_repeat: int = 1,
        **arguments: Any,
    ) -> None:
        step_per_collect = round_up(step_per_collect, train_collector.env_num * action_repeat)
        transitions = step_per_collect // action_repeat
        if train_collector.buffer.maxsize < transitions:
            raise ValueError(
                f"train_collector.buffer must hold the {transitions} steps of a collect, "
                f"got a size of {train_collector.buffer.maxsize}"
            )
        super().__init__(
            train_collector=train_collector,
            step_per_epoch=round_up(step_per_epoch, step_per_collect),
            step_per_collect=step_per_collect,
            repeat_per_collect=repeat_per_collect,
            action_repeat=action_repeat,
            **arguments,
        )

    def _start_anew(self, reset_collectors: bool, reset_buffer: bool) -> None:
        # What is in the buffer was collected by another policy.
        super()._start_anew(reset_collectors, reset_buffer=True)

    def _assumes_full_length(self, stats: CostCollectStats) -> bool:
        # The mean cost of a step then stands for the cost of an episode.
        return not stats.n_collected_episodes

    def policy_update_fn(self, collect_stats: CollectStatsBase | None = None) -> TrainingStats:
        """Update the policy once from the whole buffer, and empty the buffer."""
        with self._naming_the_step():
            stats = self.policy.update(
                sample_size=0,
                buffer=self.train_collector.buffer,
                batch_size=self.batch_size,
                repeat=self.repeat_per_collect,
            )
        self._gradient_step += 1
        self.policy_update_time += stats.train_time
        self.train_collector.reset_buffer(keep_statistics=True)
        means = MetricMean()
        means.add(stats)
        return self._log_update(stats, means.result())
