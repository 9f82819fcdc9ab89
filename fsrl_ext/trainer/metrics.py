"""Means of training statistics over many gradient steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tianshou.policy.base import TrainingStats
from torch import Tensor

from fsrl_ext.policy.base import MetricStats


class MetricMean:
    """The mean of every statistic over the gradient steps that reported it.

    Numbers on an accelerator are added up there; the host waits for them once, in :meth:`result`.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._host: dict[str, tuple[float, int]] = {}

    def add(self, stats: TrainingStats) -> None:
        """Take in the statistics of one gradient step, of any Tianshou policy."""
        if isinstance(stats, MetricStats):
            numbers: Mapping[str, Any] = stats.host_metrics
            if stats.names in self._sums:
                self._sums[stats.names] += stats.values
                self._counts[stats.names] += 1
            elif stats.names:
                self._sums[stats.names] = stats.values.double()
                self._counts[stats.names] = 1
        else:
            numbers = stats.get_loss_stats_dict()
        for name, value in numbers.items():
            total, count = self._host.get(name, (0.0, 0))
            self._host[name] = (total + value, count + 1)

    def result(self) -> dict[str, float]:
        """Return the means by name."""
        totals = dict(self._host)
        for names, sums in self._sums.items():
            for name, value in zip(names, sums.tolist(), strict=True):
                total, count = totals.get(name, (0.0, 0))
                totals[name] = (total + value, count + self._counts[names])
        return {name: total / count for name, (total, count) in totals.items()}
