"""Training statistics that stay on their device until they are logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from tianshou.policy.base import TrainingStats
from torch import Tensor


@dataclass(kw_only=True)
class MetricStats(TrainingStats):
    """Statistics of one gradient step, named numbers.

    Reading :attr:`metrics` waits for the device; :class:`MetricMean` averages many without.
    """

    names: tuple[str, ...] = ()
    values: Tensor = field(default_factory=lambda: torch.zeros(0))
    """``[len(names)]``, on the policy's device."""
    host_metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, float] | None = None) -> Self:
        """From 0-dim tensors of one device and dtype, and from plain numbers."""
        values = torch.stack([x.detach() for x in tensors.values()]) if tensors else torch.zeros(0)
        return cls(names=tuple(tensors), values=values, host_metrics=numbers or {})

    @property
    def metrics(self) -> dict[str, float]:
        """All of them by name."""
        return dict(zip(self.names, self.values.tolist(), strict=True)) | dict(self.host_metrics)

    def get_loss_stats_dict(self) -> dict[str, float]:
        """What Tianshou's trainers average and log."""
        return self.metrics


class MetricMean:
    """Mean of every statistic over the gradient steps that reported it."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._host: dict[str, tuple[float, int]] = {}

    def add(self, stats: TrainingStats) -> None:
        """Takes one gradient step's statistics in; those of other policies, too."""
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
        """The means by name; waits for the device once for each set of names."""
        totals = dict(self._host)
        for names, sums in self._sums.items():
            for name, value in zip(names, sums.tolist(), strict=True):
                total, count = totals.get(name, (0.0, 0))
                totals[name] = (total + value, count + self._counts[names])
        return {name: total / count for name, (total, count) in totals.items()}


def per_cost(name: str, values: Sequence[Any] | Tensor) -> dict[str, Any]:
    """One entry per cost: the bare name for one cost, numbered names for several."""
    if len(values) == 1:
        return {name: values[0]}
    return {f"{name}_{i}": value for i, value in enumerate(values)}
