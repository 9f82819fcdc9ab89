"""Statistics of episode costs, and their way through Tianshou's trainers into a log."""

from functools import partial

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffpolicyTrainer, OnpolicyTrainer
from tianshou.utils import TensorboardLogger
from torch.utils.tensorboard import SummaryWriter
from toys.counting import RandomPolicy, check_links, truth
from toys.envs import CountingEnv

from fsrl_ext.data import CostCollector, CostCollectStats, CostVectorReplayBuffer


def test_share_above_counts_episodes_with_any_cost_above_its_limit():
    stats = CostCollectStats(costs=np.array([[1.0, 9.0], [3.0, 2.0], [2.0, 2.0], [5.0, 9.0]]))
    assert stats.share_above(2.0) == 0.75
    assert stats.share_above([2.0, 9.0]) == 0.5  # at the limit is not above
    assert stats.share_above([5.0, 9.0]) == 0.0
    assert stats.mean_costs.tolist() == [2.75, 5.5]
    with pytest.raises(ValueError, match=r"1 or 2 entries, got \(3,\)"):
        stats.share_above([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="mean_cost needs one cost, got 2"):
        _ = stats.mean_cost


def test_without_an_episode_there_is_no_number():
    stats = CostCollectStats()
    assert np.isnan(stats.share_above(1.0))
    assert np.isnan(stats.mean_cost)
    stats.refresh_all_sequence_stats()
    assert stats.costs_stat is None
    assert stats.returns_stat is None


class CheckedPolicy(RandomPolicy):
    """Checks at every update that no episode runs into another."""

    updates = 0

    def process_fn(self, batch, buffer, indices):
        everything = {(e, k) for e in range(3) for k in range(1000)}
        check_links(buffer, abandoned=everything)
        self.updates += 1
        return batch


def train(trainer, tmp_path, num_costs=1, **kwargs):
    def envs(n):
        return DummyVectorEnv([partial(CountingEnv, i, num_costs) for i in range(n)])

    policy = CheckedPolicy()
    buffer = CostVectorReplayBuffer(48, 3, num_costs)
    train_collector = CostCollector(policy, envs(3), buffer)
    test_collector = CostCollector(policy, envs(2), num_costs=num_costs)
    train_collector.reset()
    train_collector.collect(n_step=6, random=True)  # leaves episodes open, as a warm-up does
    logger = TensorboardLogger(SummaryWriter(str(tmp_path)), train_interval=1)
    result = trainer(
        policy=policy,
        train_collector=train_collector,
        test_collector=test_collector,
        max_epoch=2,
        step_per_epoch=60,
        step_per_collect=12,
        episode_per_test=2,
        batch_size=16,
        logger=logger,
        verbose=False,
        show_progress=False,
        **kwargs,
    ).run()
    logger.finalize()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    return policy, result, events


@pytest.mark.parametrize("num_costs", [1, 2])
def test_stock_off_policy_trainer(tmp_path, num_costs):
    policy, result, events = train(OffpolicyTrainer, tmp_path, num_costs, update_per_step=0.1)
    assert policy.updates > 0
    assert result.train_step == 120
    for scope in ("train", "test"):
        for c in range(num_costs):
            for name in ("mean", "std", "min", "max"):
                assert f"{scope}/costs_stat/{c}/{name}" in events.Tags()["scalars"]
    # the trainer resets the test environments once at its start; each test resets them before,
    # at the end of their episode, and after
    for number, event in enumerate(events.Scalars("test/costs_stat/0/mean")):
        costs = [truth(e, 1 + 3 * number, num_costs, 1.0)["cost"][0] for e in range(2)]
        assert event.value == pytest.approx(np.mean(costs))
        assert event.step == 60 * number


def test_stock_on_policy_trainer_with_episodes_across_its_buffer_resets(tmp_path):
    policy, result, events = train(OnpolicyTrainer, tmp_path, repeat_per_collect=1)
    assert policy.updates == 10
    assert result.train_episode > 0
    possible = {truth(e, k, 1, 1.0)["return"] for e in range(3) for k in range(100)}
    for event in events.Scalars("train/returns_stat/max"):
        assert min(abs(event.value - value) for value in possible) < 1e-3
