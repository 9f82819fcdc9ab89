"""The log on the buffer has every finished episode once, with its full cost, and counts every collect."""

import copy
import functools
import pickle

import numpy as np
import pytest
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffpolicyTrainer, OnpolicyTrainer
from toys.counting import Finished, RandomPolicy, truth
from toys.counting_envs import CountingEnv, RestartingEnv, length

from fsrl_ext.data import (
    AheadCollector,
    CostCollector,
    CostReplayBuffer,
    CostVectorReplayBuffer,
    EpisodeLog,
    MetaCollector,
)

N = 3


def envs(num_costs=1, kind=RestartingEnv):
    return DummyVectorEnv([functools.partial(kind, i, num_costs) for i in range(N)])


def collector_for(size=60, num_costs=1, **settings):
    buffer = CostVectorReplayBuffer(size, N, num_costs)
    made = CostCollector(RandomPolicy(), envs(num_costs), buffer, **settings)
    made.reset(gym_reset_kwargs={"seed": [1, 2, 3]})
    return made


def same(one, other):
    assert (one.cycle, one.count) == (other.cycle, other.count)
    np.testing.assert_array_equal(one.costs, other.costs)
    np.testing.assert_array_equal(one.lens, other.lens)
    assert one.costs.dtype == other.costs.dtype == np.float64


@pytest.mark.parametrize("size", [600, 6], ids=["large", "smaller than one collect"])
@pytest.mark.parametrize("num_costs", [1, 2])
@pytest.mark.parametrize("fast", [True, False])
def test_every_episode_and_every_cycle_whatever_the_buffer_holds(size, num_costs, fast):
    hook = None if fast else Finished()  # Hooks need Tianshou's own loop.
    collector = collector_for(size, num_costs, on_step_hook=hook, fast=fast)
    log, costs, lens = collector.buffer.episodes, [], []
    for cycle in range(1, 13):
        seen = log.count
        stats = collector.collect(n_step=N * 5, random=cycle < 3)
        assert log.cycle == cycle
        new_costs, new_lens = log.since(seen)
        assert new_lens.tolist() == stats.lens.tolist()
        assert new_costs.tolist() == stats.costs.tolist()
        costs += new_costs.tolist()
        lens += new_lens.tolist()
    assert log.count == len(lens) == collector.collect_episode
    assert log.costs.tolist() == costs
    assert log.lens.tolist() == lens
    expected = [truth(e, k, num_costs, 1.0)["cost"].tolist() for e in range(N) for k in range(40)]
    assert all(cost in expected for cost in costs)


def test_an_episode_open_over_several_collects_counts_once_with_its_full_cost():
    collector = collector_for()
    seen = []
    for cycle in range(1, 13):
        collector.collect(n_step=N)
        log = collector.buffer.episodes
        assert log.cycle == cycle
        seen += zip(log.costs[:, 0].tolist(), log.lens.tolist(), strict=True)
        collector.reset_buffer(keep_statistics=True)  # On-policy trainers do this.
        assert len(log.costs) == len(log.lens) == 0
        assert (log.cycle, log.count) == (cycle, len(seen))
    finished = [(e, k) for e in range(N) for k in range(12) if sum(length(e, j) for j in range(k + 1)) <= 12]
    assert sorted(seen) == sorted((truth(e, k, 1, 1.0)["cost"][0], length(e, k)) for e, k in finished)


def test_a_reset_of_the_environments_drops_what_was_open():
    collector = collector_for()
    log = collector.buffer.episodes
    collector.collect(n_step=N)  # All episodes have at least two steps.
    collector.reset_env(gym_reset_kwargs={"seed": [1, 2, 3]})
    assert (log.cycle, log.count) == (1, 0)
    collector.collect(n_step=N * 6)
    first = min(range(N), key=lambda e: length(e, 0))
    assert log.lens[0] == length(first, 0)
    assert log.costs[0].tolist() == truth(first, 0, 1, 1.0)["cost"].tolist()


def test_a_collect_that_fails_is_published_as_far_as_it_came():
    collector = collector_for()
    collector.collect(n_step=N * 4)
    log = collector.buffer.episodes
    before = log.state_dict()
    step, calls = collector.env.step, []

    def broken(*args):
        calls.append(0)
        if len(calls) == 8:
            raise RuntimeError("broken")
        return step(*args)

    collector.env.step = broken
    with pytest.raises(RuntimeError, match="broken"):
        collector.collect(n_step=N * 20)
    assert (before["cycle"], log.cycle) == (1, 2)
    assert log.steps.tolist() == [11] * N
    assert collector.collect_step == len(collector.buffer) == 11 * N
    done = int(collector.buffer.done[collector.buffer.sample_indices(0)].sum())
    assert log.count == len(log.costs) == collector.collect_episode == done > before["count"]
    calls[:] = [0] * 7
    with pytest.raises(RuntimeError, match="broken"), pytest.warns(UserWarning, match="are reset"):
        collector.collect(n_step=N)
    assert log.cycle == 2  # Nothing was stored.
    collector.reset_env()
    stats = collector.collect(n_step=N * 8)
    assert log.cycle == 3
    assert log.count == done + stats.n_collected_episodes


def test_whole_episodes_and_single_buffers_are_published_too():
    collector = CostCollector(RandomPolicy(), CountingEnv(0), CostReplayBuffer(9))
    collector.reset()
    for cycle in (1, 2):
        collector.collect(n_episode=5)
        assert (collector.buffer.episodes.cycle, collector.buffer.episodes.count) == (cycle, 5 * cycle)
    # After each collect the environment is reset, which skips an episode: the one that had just begun.
    lens = [length(0, k) for k in (*range(5), *range(6, 11))]
    assert collector.buffer.episodes.lens.tolist() == lens


def ahead_for(num_costs=2, replayable=False):
    buffer = CostVectorReplayBuffer(60, N, num_costs)
    made = AheadCollector(
        RandomPolicy(), functools.partial(envs, num_costs), buffer, seed=5, replayable=replayable
    )
    made.reset(gym_reset_kwargs={"seed": [1, 2, 3]})
    return made


def test_collecting_ahead_publishes_the_same_when_it_stores():
    ahead, here = ahead_for(), collector_for(num_costs=2)
    try:
        for steps in (N, N * 30, N * 4, N * 9):
            ahead.start(steps)
            same(ahead.buffer.episodes, here.buffer.episodes)
            ahead.collect(n_step=steps)
            here.collect(n_step=steps)
            same(ahead.buffer.episodes, here.buffer.episodes)
        ahead.reset_buffer()
        here.reset_buffer()
        same(ahead.buffer.episodes, here.buffer.episodes)
    finally:
        ahead.close()


def test_a_meta_collector_publishes_in_the_buffer_of_its_task():
    collector = MetaCollector(RandomPolicy(), lambda task: envs(), step_per_collect=N * 5, num_envs=N)
    for task in range(2):
        collector.start(task, [1, 2, 3])
        for cycle in (1, 2, 3):
            stats = collector.collect()
            assert collector.buffer.episodes.cycle == 3 * task + cycle
            assert collector.buffer.episodes.lens.tolist() == stats.lens.tolist()
    collector.close()


def goes_on(first, second):
    """Check that both collectors publish the same from here on."""
    for steps in (N * 7, N, N * 11):
        for each in (first, second):
            each.collect(n_step=steps)
        same(first.buffer.episodes, second.buffer.episodes)


@pytest.mark.parametrize("emptied", [False, True])
def test_a_resumed_collector_goes_on(emptied):
    first, second = (collector_for(num_costs=2, replayable=True) for _ in range(2))
    first.collect(n_step=N * 8)
    if emptied:
        first.reset_buffer(keep_statistics=True)
    assert second.load_state_dict(first.state_dict())
    same(first.buffer.episodes, second.buffer.episodes)
    goes_on(first, second)


def test_a_resumed_collector_that_collects_ahead_goes_on():
    first, second = (ahead_for(replayable=True) for _ in range(2))
    try:
        first.collect(n_step=N * 8)
        first.start(N * 7)
        assert second.load_state_dict(first.state_dict())
        same(first.buffer.episodes, second.buffer.episodes)
        assert second.buffer.episodes.cycle == 1
        goes_on(first, second)
        assert second.buffer.episodes.cycle == 4
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("kind", [CostReplayBuffer, CostVectorReplayBuffer])
def test_the_log_goes_where_its_buffer_goes(kind, tmp_path):
    buffer = kind(9, num_costs=2) if kind is CostReplayBuffer else kind(9, N, num_costs=2)
    buffer.episodes.publish(np.array([[1.5, 2.0], [0.25, 0.0]]), np.array([3, 4]))
    buffer.save_hdf5(str(tmp_path / "buffer.h5"))
    for other in (
        pickle.loads(pickle.dumps(buffer)),
        copy.deepcopy(buffer),
        kind.load_hdf5(str(tmp_path / "buffer.h5")),
    ):
        same(other.episodes, buffer.episodes)
        other.episodes.publish(np.zeros((0, 2)), np.zeros(0, dtype=int))
        assert (other.episodes.cycle, buffer.episodes.cycle) == (2, 1)


def test_a_buffer_saved_without_a_log_gets_an_empty_one():
    buffer = CostReplayBuffer(9, num_costs=2)
    state = {key: value for key, value in buffer.__getstate__().items() if key != "episodes"}
    other = CostReplayBuffer.__new__(CostReplayBuffer)
    other.__setstate__(state)
    same(other.episodes, EpisodeLog(2))


class Listening(RandomPolicy):
    """Notes at every update which cycle it is and how many episodes are new."""

    def __init__(self):
        super().__init__()
        self.seen, self.notes = 0, []

    def process_fn(self, batch, buffer, indices):
        log = buffer.episodes
        self.notes.append((log.cycle, len(log.since(self.seen)[1])))
        self.seen = log.count
        return batch


@pytest.mark.parametrize("trainer", [OffpolicyTrainer, OnpolicyTrainer])
def test_stock_trainers_see_every_cycle_and_every_episode(trainer):
    policy = Listening()
    buffer = CostVectorReplayBuffer(48, N)
    collector = CostCollector(policy, envs(), buffer)
    kind = {"update_per_step": 1 / 12} if trainer is OffpolicyTrainer else {"repeat_per_collect": 1}
    trainer(
        policy=policy,
        train_collector=collector,
        test_collector=None,
        max_epoch=2,
        step_per_epoch=60,
        step_per_collect=12,
        episode_per_test=1,
        batch_size=16,
        verbose=False,
        show_progress=False,
        **kind,
    ).run()
    assert [cycle for cycle, _ in policy.notes] == list(range(1, 11))
    assert sum(new for _, new in policy.notes) == collector.collect_episode > 20


def test_since_tells_what_is_new():
    log = EpisodeLog(1)
    log.publish(np.array([[1.0], [2.0]]), np.array([5, 6]))
    assert log.since(0)[0].tolist() == [[1.0], [2.0]]
    assert log.since(1)[1].tolist() == [6]
    assert log.since(2)[0].shape == (0, 1)
    assert log.since(7)[0].tolist() == [[1.0], [2.0]]  # The count is of another log.
    log.clear()
    log.publish(np.array([[3.0]]), np.array([7]))
    assert log.since(2)[0].tolist() == [[3.0]]
    assert log.since(0)[0].tolist() == [[3.0]]  # The others are not kept.
    assert log.since(3)[0].shape == (0, 1)


def test_only_the_newest_episodes_are_kept(monkeypatch):
    monkeypatch.setattr(EpisodeLog, "capacity", 4)
    log = EpisodeLog(1)
    for k in range(3):
        log.publish(np.arange(3.0)[:, None] + 3 * k, np.arange(3) + 3 * k)
    assert log.count == 9
    assert log.lens.tolist() == [5, 6, 7, 8]
    assert log.costs[:, 0].tolist() == [5.0, 6.0, 7.0, 8.0]
    assert log.since(3)[1].tolist() == [5, 6, 7, 8]
    assert log.since(7)[1].tolist() == [7, 8]


def test_misshapen_episodes_are_refused():
    log = EpisodeLog(2)
    for costs, lens in (((3, 1), 3), ((3, 2), 2)):
        with pytest.raises(ValueError, match=r"must have shapes \[E, 2\] and \[E\], got"):
            log.publish(np.zeros(costs), np.zeros(lens, dtype=int))
    assert (log.cycle, log.count) == (0, 0)


@pytest.mark.parametrize("fast", [True, False])
def test_discounted_costs_have_the_discount_of_the_costs(fast):
    """Return and costs have a discount each, or one for all, and a discount of 1 changes nothing."""

    def truths(e, k, factors):
        return [truth(e, k, 2, factor)["discounted_cost"][i] for i, factor in enumerate(factors)]

    for discount, factors in (((0.9, 0.8, 1.0), (0.8, 1.0)), (0.7, (0.7, 0.7)), (1.0, (1.0, 1.0))):
        hook = None if fast else Finished()
        collector = collector_for(num_costs=2, discount=discount, fast=fast, on_step_hook=hook)
        stats = collector.collect(n_step=N * 12)
        log = collector.buffer.episodes
        episodes = {e: iter(range(12)) for e in range(N)}
        ended = [truths(e, next(episodes[e]), factors) for e in stats.env_ids.tolist()]
        np.testing.assert_allclose(log.discounted_costs, ended, rtol=1e-12)
        np.testing.assert_array_equal(log.discounted_costs, stats.discounted_costs)
        np.testing.assert_array_equal(log.limited_costs("discounted"), log.discounted_costs)
        np.testing.assert_array_equal(log.since(0, "discounted")[0], log.discounted_costs)
        np.testing.assert_array_equal(log.limited_costs("episode"), log.costs)


def test_a_discount_is_one_number_or_one_for_each_signal():
    with pytest.raises(ValueError, match="discount must be one number or 3, for reward and costs"):
        collector_for(num_costs=2, discount=(0.9, 0.8))


def test_costs_that_nobody_discounted_are_no_discounted_costs():
    log = collector_for().buffer.episodes
    assert log.limited_costs("discounted").shape == (0, 1)
    log.publish(np.ones((2, 1)), np.array([3, 3]), discounted_costs=np.full((2, 1), 0.5))
    assert log.since(1, "discounted")[0].tolist() == [[0.5]]
    log.publish(np.ones((1, 1)), np.array([3]))
    for ask in (log.limited_costs, lambda unit: log.since(2, unit)):
        with pytest.raises(ValueError, match="limit_unit='discounted' needs the discounted costs"):
            ask("discounted")
    assert log.since(2)[0].tolist() == [[1.0]]
    log.clear()
    log.publish(np.ones((1, 1)), np.array([3]), discounted_costs=np.full((1, 1), 0.25))
    assert log.limited_costs("discounted").tolist() == [[0.25]]
    with pytest.raises(ValueError, match="discounted_costs must have the shape"):
        log.publish(np.ones((1, 1)), np.array([3]), discounted_costs=np.ones(1))


@pytest.mark.parametrize("ahead", [False, True])
def test_the_log_knows_how_far_the_open_episodes_were_when_the_buffer_was_emptied(ahead):
    if ahead:
        buffer = CostVectorReplayBuffer(60, N)
        collector = AheadCollector(RandomPolicy(), envs, buffer, seed=1, cores=1)
        collector.reset_env()
    else:
        collector = collector_for()
    log = collector.buffer.episodes
    assert log.first_steps.tolist() == [0]
    for _ in range(8):
        before = log.open_steps.tolist()
        collector.reset_buffer(keep_statistics=True)
        assert log.first_steps.tolist() == before
        collector.collect(n_step=N * 3)
        # Observations tell environment, episode and step.
        indices = collector.buffer.last_index
        newest = collector.buffer.obs_next[indices][:, 2].astype(int)
        assert log.open_steps.tolist() == np.where(collector.buffer.done[indices], 0, newest).tolist()
    assert log.open_steps.any()
    again = EpisodeLog(1)
    again.load_state_dict(log.state_dict())
    assert again.first_steps.tolist() == log.first_steps.tolist() != [0] * N
    # A reset of the environments: what follows begins anew.
    collector.reset_env()
    assert log.open_steps.tolist() == [0]
    assert log.first_steps.any()  # of the data that are there
    collector.reset_buffer(keep_statistics=True)
    collector.reset_env()
    assert log.first_steps.tolist() == [0]
    collector.close()


def test_a_log_of_an_earlier_version_has_neither_discounted_costs_nor_open_episodes():
    log = EpisodeLog(1)
    log.publish(np.ones((2, 1)), np.array([3, 3]), 6, discounted_costs=np.ones((2, 1)))
    earlier = ("cycle", "count", "costs", "lens", "steps")
    state = {name: x for name, x in log.state_dict().items() if name in earlier}
    log.load_state_dict(state)
    assert (log.discounted_costs, log.open_steps.tolist(), log.first_steps.tolist()) == (None, [0], [0])
    assert set(log.state_dict()) == {*state, "open_steps", "first_steps"}
