"""Statistics of episode costs, and their way through Tianshou's trainers into a log."""

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffpolicyTrainer, OnpolicyTrainer
from tianshou.utils import TensorboardLogger
from torch.utils.tensorboard import SummaryWriter
from toys.counting import RandomPolicy, check_links, truth
from toys.counting_envs import CountingEnv

from fsrl_ext.data import CostCollector, CostCollectStats, CostVectorReplayBuffer


def test_share_above_counts_episodes_with_any_cost_above_its_limit():
    stats = CostCollectStats(costs=np.array([[1.0, 9.0], [3.0, 2.0], [2.0, 2.0], [5.0, 9.0]]))
    assert stats.share_above(2.0) == 0.75
    assert stats.share_above([2.0, 9.0]) == 0.5  # A cost at its limit is not above it.
    assert stats.share_above([5.0, 9.0]) == 0.0
    assert [stats.num_above(x) for x in (2.0, [2.0, 9.0], [5.0, 9.0])] == [3, 2, 0]
    assert stats.mean_costs.tolist() == [2.75, 5.5]
    with pytest.raises(ValueError, match=r"1 or 2 entries, got \(3,\)"):
        stats.share_above([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="mean_cost needs one cost, got 2"):
        _ = stats.mean_cost


def test_without_an_episode_there_is_no_number():
    stats = CostCollectStats()
    assert np.isnan(stats.share_above(1.0))
    assert stats.num_above(1.0) == 0
    assert np.isnan(stats.mean_cost)
    stats.refresh_all_sequence_stats()
    assert stats.costs_stat is None
    assert stats.returns_stat is None


def collected(seed, discounted=True):
    """Make statistics of three to six episodes with two costs."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 7))
    stats = CostCollectStats(
        n_collected_steps=50,
        n_collected_episodes=count,
        returns=rng.normal(size=count),
        lens=rng.integers(1, 9, count),
        costs=rng.random((count, 2)),
    )
    if discounted:
        stats.discounted_returns, stats.discounted_costs = rng.normal(size=count), rng.random((count, 2))
    stats.refresh_all_sequence_stats()
    return stats


def test_joined_statistics_hold_all_episodes():
    parts = [collected(seed) for seed in range(3)]
    whole = CostCollectStats.joined(parts, n_collected_steps=7)
    assert (whole.n_collected_steps, whole.n_collected_episodes) == (7, sum(len(x.lens) for x in parts))
    for name in ("returns", "lens", "costs", "discounted_returns", "discounted_costs"):
        np.testing.assert_array_equal(
            getattr(whole, name), np.concatenate([getattr(x, name) for x in parts]), err_msg=name
        )
    assert whole.costs_stat[1].max == max(x.costs[:, 1].max() for x in parts)
    assert whole.returns_stat.mean == np.concatenate([x.returns for x in parts]).mean()
    mixed = CostCollectStats.joined([parts[0], collected(9, discounted=False)], n_collected_steps=7)
    assert mixed.discounted_returns is None
    assert mixed.discounted_costs is None


@pytest.mark.parametrize("discounted", [True, False])
def test_statistics_come_back_from_their_state(discounted):
    stats, other = collected(4, discounted), CostCollectStats()
    other.load_state_dict(stats.state_dict())
    one, two = asdict(stats), asdict(other)
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value, err_msg=name)


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
    train_collector.collect(n_step=6, random=True)  # This leaves episodes open, as a warm-up does.
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
    # The trainer resets the test environments once at its start; each test resets them before, at the end of
    # their episode, and after.
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
