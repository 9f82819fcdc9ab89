"""Meta-training on Tianshou's loop: adapt to some tasks, judge the adapted policies, move the meta-policy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tianshou.data import CollectStatsBase
from tianshou.policy.base import TrainingStats

from fsrl_ext.data import CostCollectStats, MetaCollector
from fsrl_ext.data.sizes import round_up
from fsrl_ext.errors import checked
from fsrl_ext.policy.base import MetricStats, per_cost
from fsrl_ext.policy.meta_cpo import MetaCPOPolicy
from fsrl_ext.trainer.cost_trainer import CostTrainer
from fsrl_ext.trainer.metrics import MetricMean


class MetaTrainer(CostTrainer):
    """Trains a :class:`~fsrl_ext.policy.MetaCPOPolicy` on tasks of a distribution.

    A cycle is one meta-iteration. For each of ``num_tasks`` fresh tasks the trainer collects and adapts K
    times, and then collects once more with the adapted policy. After all tasks the meta-policy takes one
    step. An epoch holds whole meta-iterations. Selection judges the meta-policy itself, before any
    adaptation, on the test collector's task. Training curves are those of the adapted policies. Episodes of
    the policy after ``k`` steps of the adaptation, from 0 to K, are logged as ``adaptation/return_k`` and
    ``adaptation/cost_k``, whose unit is that of the limits.

    :param train_collector: a :class:`~fsrl_ext.data.MetaCollector`.
    :param draw_tasks: ``(count, start) -> tasks``: the ``count`` tasks from number ``start`` on, in an
        endless order.
    :param env_seeds: ``(iteration, count) -> seeds`` of the first episodes of all environments of a
        meta-iteration.
    :param step_per_epoch: environment steps of an epoch, rounded up to whole meta-iterations.
    :param arguments: those of :class:`~fsrl_ext.trainer.cost_trainer.CostTrainer`; ``step_per_collect`` and
        ``batch_size`` are not among them.
    """

    policy: MetaCPOPolicy
    train_collector: MetaCollector  # type: ignore[assignment]

    @checked(at_least_one=("step_per_epoch",))
    def __init__(
        self,
        *,
        policy: MetaCPOPolicy,
        train_collector: MetaCollector,
        draw_tasks: Callable[[int, int], Sequence[Any]],
        env_seeds: Callable[[int, int], Sequence[int]],
        step_per_epoch: int,
        **arguments: Any,
    ) -> None:
        config = policy.config
        cycle = config.num_tasks * (config.inner_steps + 1) * train_collector.step_per_collect
        super().__init__(
            policy=policy,
            train_collector=train_collector,  # type: ignore[arg-type]
            step_per_epoch=round_up(step_per_epoch, cycle),
            step_per_collect=cycle,
            batch_size=None,
            **arguments,
        )
        self.draw_tasks = draw_tasks
        self.env_seeds = env_seeds
        self.iteration = 0
        self._adaptation = MetricMean()
        self._collected_no_episode = False

    def _start_anew(self, reset_collectors: bool, reset_buffer: bool) -> None:
        super()._start_anew(reset_collectors, reset_buffer)
        self.iteration = 0

    def _counters(self) -> tuple[str, ...]:
        return (*super()._counters(), "iteration")

    def run(self, reset_collectors: bool = True, reset_buffer: bool = False) -> Any:
        """Train to the end of the budget; see Tianshou's trainer."""
        try:
            return super().run(reset_collectors=reset_collectors, reset_buffer=reset_buffer)
        finally:
            # An interrupted meta-iteration leaves tasks behind, and a policy that is adapted to one of them.
            self.train_collector.close()
            self.policy.forget_tasks()

    def _collect_cycle(self) -> CostCollectStats:
        """Adapt to the next tasks; returns the statistics of the adapted policies' episodes."""
        config, collector = self.policy.config, self.train_collector
        tasks = self.draw_tasks(config.num_tasks, self.iteration * config.num_tasks)
        seeds = np.asarray(self.env_seeds(self.iteration, len(tasks) * collector.env_num))
        self._adaptation = MetricMean()
        self._collected_no_episode = False
        adapted: list[CostCollectStats] = []
        steps = 0
        for task, task_seeds in zip(tasks, seeds.reshape(len(tasks), -1).tolist(), strict=True):
            collector.start(task, task_seeds)
            self.policy.begin_task(record=True)
            for k in range(config.inner_steps + 1):
                stats = collector.collect()
                steps += stats.n_collected_steps
                self._note(stats, k)
                if k < config.inner_steps:
                    self._adaptation.add(self.policy.update(0, collector.buffer))
            self.policy.finish_task(collector.buffer)
            adapted.append(stats)
        collector.close()
        self.iteration += 1
        return CostCollectStats.joined(adapted, n_collected_steps=steps)

    def _assumes_full_length(self, stats: CostCollectStats) -> bool:
        # In one of the collects the mean cost of a step then stood for the cost of an episode.
        return self._collected_no_episode

    def _note(self, stats: CostCollectStats, k: int) -> None:
        """Note the episodes of the policy after k steps of its adaptation."""
        self._collected_no_episode |= not stats.n_collected_episodes
        if stats.n_collected_episodes:
            numbers = {
                f"adaptation/return_{k}": float(stats.returns.mean()),
                **per_cost(f"adaptation/cost_{k}", stats.limited_costs(self.limit_unit).mean(0).tolist()),
                f"adaptation/above_{k}": stats.share_above(self.cost_limit, self.limit_unit),
            }
            self._adaptation.add(MetricStats.of({}, numbers))

    def policy_update_fn(self, collect_stats: CollectStatsBase) -> TrainingStats:
        """Take one step of the meta-policy, and log it with the means over the adaptations."""
        started = time.time()
        with self._naming_the_step():
            metrics = self.policy.meta_step()
        self.policy_update_time += time.time() - started
        self._gradient_step += 1
        return self._log_update(TrainingStats(), self._adaptation.result() | metrics)
