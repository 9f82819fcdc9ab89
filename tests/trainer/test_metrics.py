"""Statistics are averaged over the gradient steps that reported them."""

from dataclasses import dataclass

import pytest
import torch
from tianshou.policy.base import TrainingStats

from fsrl_ext.policy.base import MetricStats
from fsrl_ext.trainer.metrics import MetricMean


@dataclass(kw_only=True)
class PlainStats(TrainingStats):
    """Statistics as one of Tianshou's own policies has them."""

    loss: float


def test_every_number_is_averaged_over_the_steps_that_reported_it():
    means = MetricMean()
    means.add(MetricStats.of({"loss": torch.tensor(1.0), "kl": torch.tensor(4.0)}, {"cost": 10.0}))
    means.add(MetricStats.of({"loss": torch.tensor(3.0), "kl": torch.tensor(8.0)}, {"cost": 20.0}))
    means.add(MetricStats.of({"loss": torch.tensor(8.0)}))  # This step has no actor's part.
    means.add(PlainStats(loss=4.0))
    assert means.result() == {"loss": 4.0, "kl": 6.0, "cost": 15.0}


def test_sums_are_exact_where_float32_is_not():
    means = MetricMean()
    for value in (2.0**25, 1.0, 1.0, 1.0):
        means.add(MetricStats.of({"loss": torch.tensor(value)}))
    assert means.result()["loss"] == (2.0**25 + 3.0) / 4
    assert MetricMean().result() == {}


def test_adding_leaves_the_statistics_as_they_are():
    stats = MetricStats.of({"loss": torch.tensor(2.0)})
    means = MetricMean()
    means.add(stats)
    means.add(stats)
    assert stats.metrics == {"loss": 2.0}
    assert means.result()["loss"] == pytest.approx(2.0)
