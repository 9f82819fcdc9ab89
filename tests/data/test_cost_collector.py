"""The collector reports and stores what the environments did."""

import warnings

import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.data.collector import EpisodeRolloutHookMCReturn
from tianshou.env import DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv
from toys.counting import Finished, RandomPolicy, check_links, check_stats
from toys.counting_envs import CountingEnv, NoisyCountingEnv, length

from fsrl_ext.data import CostCollector, CostReplayBuffer, CostVectorReplayBuffer

DISCOUNT = 0.9


def make_collector(n_envs=3, num_costs=1, venv=DummyVectorEnv, size=60, **kwargs):
    env = venv([lambda i=i: CountingEnv(i, num_costs) for i in range(n_envs)])
    buffer = CostVectorReplayBuffer(size, n_envs, num_costs)
    hook = Finished()
    collector = CostCollector(RandomPolicy(), env, buffer, on_step_hook=hook, discount=DISCOUNT, **kwargs)
    collector.reset()
    return collector, hook


def open_episodes(collector):
    """Return the episodes under way, which the last observations tell."""
    return {(int(e), int(k)) for e, k, *_ in collector._pre_collect_obs_RO}


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("num_costs", [1, 2])
@pytest.mark.parametrize("size", [60, 12], ids=["large", "wraps"])
@pytest.mark.filterwarnings("ignore:n_episode=")
def test_any_sequence_of_collections_reports_and_stores_the_truth(n_envs, num_costs, size):
    collector, hook = make_collector(n_envs, num_costs, size=size * n_envs)
    rng = np.random.default_rng(n_envs + 10 * num_costs)
    abandoned, total_steps, total_episodes = set(), 0, 0
    for _ in range(60):
        what = rng.choice(["step", "episode", "reset_env", "on-policy"], p=[0.5, 0.2, 0.15, 0.15])
        before = open_episodes(collector)
        if what == "reset_env":
            collector.reset_env()
            abandoned |= before
        elif what == "on-policy":  # Tianshou's on-policy trainer does this after each update.
            collector.reset_buffer(keep_statistics=True)
        else:
            amount = int(rng.integers(1, 8))
            if what == "step":
                stats = collector.collect(n_step=amount * n_envs)
            else:
                stats = collector.collect(n_episode=amount)
                assert stats.n_collected_episodes == amount
                abandoned |= before  # With fewer episodes than environments, some stay open.
            check_stats(stats, hook.pop(), DISCOUNT)
            total_steps += stats.n_collected_steps
            total_episodes += stats.n_collected_episodes
        if len(collector.buffer):
            check_links(collector.buffer, abandoned)
    assert total_episodes > 20  # The sequence was not an empty one.
    assert (collector.collect_step, collector.collect_episode) == (total_steps, total_episodes)
    assert collector.collect_time > 0


@pytest.mark.parametrize("venv", [SubprocVectorEnv, ShmemVectorEnv])
def test_environments_in_other_processes(venv):
    collector, hook = make_collector(3, 2, venv)
    check_stats(collector.collect(n_step=30), hook.pop(), DISCOUNT)
    check_stats(collector.collect(n_episode=7), hook.pop(), DISCOUNT)
    check_links(collector.buffer, {(e, k) for e in range(3) for k in range(20)})
    collector.close()


def test_open_episodes_end_as_truncated_when_the_environments_are_reset():
    collector, _ = make_collector(3)
    collector.collect(n_step=3)  # Each environment takes one step, and all episodes have at least two.
    last = collector.buffer.last_index.copy()
    collector.reset(reset_buffer=False)
    assert collector.buffer.truncated[last].all()
    assert collector.buffer.done[last].all()
    assert not collector.buffer.terminated[last].any()
    assert len(collector.buffer.unfinished_index()) == 0
    collector.collect(n_step=6)
    np.testing.assert_array_equal(collector.buffer.next(last), last)


def test_n_step_returns_do_not_see_the_next_episode():
    collector, _ = make_collector(1)
    collector.collect(n_step=1)
    collector.reset_env()  # The rewards of episode 1 are about 11.
    collector.collect(n_step=4)
    batch, indices = collector.buffer[np.array([0])], np.array([0])
    result = RandomPolicy.compute_nstep_return(
        batch,
        collector.buffer,
        indices,
        lambda buffer, idx: torch.full((len(idx), 1), 100.0),
        gamma=0.5,
        n_step=4,
    )
    # The return is one reward and the value of its obs_next: the episode was cut off, it did not terminate.
    assert result.returns.item() == pytest.approx(1.0 + 0.5 * 100.0)


def test_episodes_longer_than_their_buffer_are_counted_in_full():
    for size in (2, 3, 4, 5):
        collector, hook = make_collector(1, 2, size=size)
        check_stats(collector.collect(n_episode=25), hook.pop(), DISCOUNT)


def test_an_episode_that_spans_many_collections_and_resets_of_the_buffer():
    collector, hook = make_collector(1)
    lens = []
    for _ in range(12):
        stats = collector.collect(n_step=1)
        check_stats(stats, hook.pop(), DISCOUNT)
        lens.extend(stats.lens)
        collector.reset_buffer(keep_statistics=True)
        assert len(collector.buffer) == 0
    assert lens == [length(0, 0), length(0, 1), length(0, 2)]  # These have 2 + 4 + 6 steps.


def test_one_environment_without_a_vector():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collector = CostCollector(
            RandomPolicy(), CountingEnv(0, 2), CostReplayBuffer(9, 2), discount=DISCOUNT
        )
        collector.reset()
        stats = collector.collect(n_episode=5)
    check_stats(stats, [(0, k) for k in range(5)], DISCOUNT)
    check_links(collector.buffer, set())
    collector.collect(n_step=1)
    collector.reset_env()
    collector.collect(n_step=9)
    check_links(collector.buffer, {(0, 6)})


def test_the_default_buffer_fits_the_environments():
    env = DummyVectorEnv([lambda i=i: CountingEnv(i, 2) for i in range(2)])
    collector = CostCollector(RandomPolicy(), env, num_costs=2)
    collector.reset()
    assert isinstance(collector.buffer, CostVectorReplayBuffer)
    assert collector.buffer.buffer_num == 2
    assert collector.collect(n_episode=2).costs.shape == (2, 2)
    assert collector.num_costs == 2


def test_discounted_sums_only_on_request():
    env = DummyVectorEnv([lambda: CountingEnv(0)])
    collector = CostCollector(RandomPolicy(), env)
    collector.reset()
    stats = collector.collect(n_episode=1)
    assert stats.discounted_returns is None
    assert stats.discounted_costs is None


def test_hooks_see_and_shape_the_step():
    seen = []

    def hook(action_batch, rollout_batch):
        seen.append((rollout_batch.cost.copy(), rollout_batch.info.extra.copy()))
        rollout_batch.rew = 2.0 * rollout_batch.rew

    env = DummyVectorEnv([lambda i=i: CountingEnv(i) for i in range(2)])
    collector = CostCollector(
        RandomPolicy(),
        env,
        on_step_hook=hook,
        on_episode_done_hook=EpisodeRolloutHookMCReturn(gamma=1.0),
        pass_info=True,
    )
    collector.reset()
    stats = collector.collect(n_episode=2)
    plain, _ = make_collector(2)
    np.testing.assert_array_equal(stats.returns, 2 * plain.collect(n_episode=2).returns)
    assert seen[0][0].shape == (2, 1)
    assert seen[0][1].tolist() == [1, 1]
    np.testing.assert_allclose(
        np.sort(collector.buffer[:].full_episode_mc_return[[0, -1]]), np.sort(stats.returns)
    )


@pytest.mark.parametrize("pass_info", [False, True])
def test_info_and_an_empty_policy_entry_are_not_stored(pass_info):
    collector, _ = make_collector(2, pass_info=pass_info)
    collector.collect(n_step=10)
    keys = set(collector.buffer._meta.get_keys())
    assert keys == {"obs", "act", "rew", "terminated", "truncated", "done", "obs_next", "cost"}
    batch, _ = collector.buffer.sample(4)
    assert batch.cost.shape == (4, 1)
    assert batch.cost.dtype == batch.obs.dtype == batch.obs_next.dtype == np.float32


def test_log_probabilities_of_the_policy_are_stored_without_gradients():
    weight = torch.nn.Parameter(torch.ones(()))
    policy = RandomPolicy(
        policy=lambda act: Batch(log_prob=weight * torch.as_tensor(act).sum(1)),
    )
    env = DummyVectorEnv([lambda i=i: CountingEnv(i) for i in range(2)])
    collector = CostCollector(policy, env)
    collector.reset()
    collector.collect(n_step=4, random=True)  # The first steps have no such entry.
    collector.collect(n_step=6)
    batch = collector.buffer[:]
    log_prob = batch.policy.log_prob
    assert not log_prob.requires_grad
    rows = np.abs(log_prob.numpy()) > 0
    assert rows.sum() == 6
    np.testing.assert_allclose(log_prob.numpy()[rows], batch.act[rows].sum(1), rtol=1e-6)


def noisy_run(seed):
    env = DummyVectorEnv([lambda i=i: NoisyCountingEnv(i) for i in range(2)])
    buffer = CostVectorReplayBuffer(200, 2, random_seed=seed)
    collector = CostCollector(RandomPolicy(seed), env, buffer)
    collector.reset(gym_reset_kwargs={"seed": seed})
    stats = collector.collect(n_step=100)
    return stats, buffer[:], buffer.sample(16)[1]


def test_the_same_seed_gives_the_same_experience_and_another_seed_another():
    first, second, other = noisy_run(3), noisy_run(3), noisy_run(4)
    np.testing.assert_array_equal(first[0].costs, second[0].costs)
    for key in ("obs", "act", "rew", "cost", "obs_next"):
        np.testing.assert_array_equal(first[1][key], second[1][key])
    for key in ("obs", "act", "rew", "cost"):
        assert not np.array_equal(first[1][key], other[1][key])
    np.testing.assert_array_equal(first[2], second[2])
    assert not np.array_equal(first[2], other[2])
