"""Off-policy training with costs on Tianshou's loop."""

from __future__ import annotations

import time
from typing import Any

from tianshou.data import CollectStatsBase
from tianshou.policy.base import TrainingStats
from tianshou.trainer import OffpolicyTrainer
from tianshou.utils.torch_utils import torch_train_mode

from fsrl_ext.errors import checked
from fsrl_ext.trainer.cost_trainer import CostTrainer
from fsrl_ext.trainer.metrics import MetricMean


class CostOffpolicyTrainer(CostTrainer, OffpolicyTrainer):
    """Tianshou's off-policy trainer for policies with a cost limit.

    With an :class:`~fsrl_ext.data.AheadCollector`, steps are collected while the policy learns from the steps
    before.

    :param update_per_step: gradient steps per environment step.
    :param warmup_steps: environment steps with random actions at the start, without gradient steps; they
        count in the budget.
    :param arguments: those of :class:`~fsrl_ext.trainer.cost_trainer.CostTrainer`.
    :raises ValueError: ``update_per_step`` is not positive, or a number is too small.
    """

    @checked(positive=("update_per_step",), at_least_zero=("warmup_steps",))
    def __init__(self, *, update_per_step: float, warmup_steps: int = 0, **arguments: Any) -> None:
        super().__init__(update_per_step=update_per_step, **arguments)
        self.warmup_steps = warmup_steps
        self._updates_due = 0.0

    def _start_anew(self, reset_collectors: bool, reset_buffer: bool) -> None:
        super()._start_anew(reset_collectors, reset_buffer)
        self._updates_due = 0.0

    def _counters(self) -> tuple[str, ...]:
        return (*super()._counters(), "_updates_due")

    def policy_update_fn(self, collect_stats: CollectStatsBase) -> TrainingStats:
        """Take ``update_per_step`` gradient steps for each collected step, and log their means."""
        if self.env_step <= self.warmup_steps:
            return TrainingStats()
        # A fraction of a step that is still owed carries over to the next cycle.
        self._updates_due += self.update_per_step * collect_stats.n_collected_steps
        num_updates, started = int(self._updates_due), time.time()
        self._updates_due -= num_updates
        means = MetricMean()
        stats = TrainingStats()
        # The mode is set once for all updates, so the policy need not change it for each.
        with torch_train_mode(self.policy), self._naming_the_step(gradient=True):
            for _ in range(num_updates):
                stats = self.policy.update(self.batch_size, self.train_collector.buffer)
                self._gradient_step += 1
                means.add(stats)
        self.policy_update_time += time.time() - started
        return self._log_update(stats, means.result())
