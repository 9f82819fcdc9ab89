"""A small buffer hides no episode from the policies, and one that is too small is refused by its name."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from tianshou.env import DummyVectorEnv
from toys.envs import DearEnv, LineEnv
from toys.policies import LAGRANGIAN, OFFPOLICY, ONPOLICY, T, build, learner
from toys.settings import small_config
from toys.training import collect, collector_for, train, update

from fsrl_ext.data import AheadCollector, CostVectorReplayBuffer, MetaCollector
from fsrl_ext.trainer import CostOnpolicyTrainer

# Episodes of 20 steps cost 20 each; a collect has 40 steps.
LIMIT, STEPS, CYCLES = 1.0, 40, 6


def dear_envs(num_envs):
    return DummyVectorEnv([lambda: gym.wrappers.TimeLimit(DearEnv(), T)] * num_envs)


def learnt(name, collector_of):
    """Return the policy after some cycles of one update each, and its multipliers after every cycle."""
    policy = build(name, cost_limit=LIMIT, hidden=(4,))
    collector, multipliers = collector_of(policy), []
    for _ in range(CYCLES):
        collect(policy, collector, STEPS)
        update(policy, collector, batch_size=8)
        if name in LAGRANGIAN:
            multipliers.append(policy.multipliers.values.tolist())
    return policy, multipliers


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("name", OFFPOLICY)
def test_the_constraint_sees_every_episode_whatever_the_size(name, num_envs):
    def collector_of(policy, size):
        return collector_for(policy, env=DearEnv, num_envs=num_envs, size=size)

    reference, expected = learnt(name, functools.partial(collector_of, size=800))
    assert reference.episode_cost.tolist() == [T]
    if name in LAGRANGIAN:
        assert expected[0] < expected[-1]
    for size in (80, 40, 30, 20, 8):
        policy, multipliers = learnt(name, functools.partial(collector_of, size=size))
        assert multipliers == expected, size
        assert policy.episode_cost.tolist() == [T], size


@pytest.mark.parametrize(("name", "size"), [("sac", 20), ("cvpo", 8)])
def test_so_it_does_when_collecting_ahead(name, size):
    made = []

    def collector_of(policy):
        buffer = CostVectorReplayBuffer(size, 2)
        made.append(AheadCollector(policy, functools.partial(dear_envs, 2), buffer, seed=0))
        made[0].reset(gym_reset_kwargs={"seed": [0, 1]})
        return made[0]

    try:
        policy, multipliers = learnt(name, collector_of)
    finally:
        made[0].close()
    _, expected = learnt(name, lambda x: collector_for(x, env=DearEnv, num_envs=2, size=800))
    assert multipliers == expected
    assert policy.episode_cost.tolist() == [T]


def test_the_limit_is_kept_with_a_buffer_below_one_collect():
    policy = learner("sac", cost_limit=5.0)
    collector = collector_for(policy, env=LineEnv, size=40)
    train(policy, collector, cycles=40, updates=20)
    costs = [collect(policy, collector).costs for _ in range(5)]
    assert 3.5 < np.concatenate(costs).mean() < 5.5


@pytest.mark.parametrize("name", ONPOLICY)
def test_on_policy_learning_refuses_a_buffer_that_lost_steps(name):
    policy = build(name, hidden=(4,))
    collector = collector_for(policy, env=DearEnv, size=40)
    collect(policy, collector, 80)
    words = "buffer must hold every step since it was last emptied.* needs a size of 80, got 40"
    with pytest.raises(ValueError, match=words):
        update(policy, collector)
    collect(policy, collector, 40)  # This call empties the buffer first.
    update(policy, collector)
    collector.collect(n_step=4)
    with pytest.raises(ValueError, match="needs a size of 44, got 40"):
        update(policy, collector)


def test_the_on_policy_trainer_refuses_it_before_anything_starts():
    policy = build("ppo", hidden=(4,))
    with pytest.raises(ValueError, match="must hold the 80 steps of a collect, got a size of 40"):
        CostOnpolicyTrainer(
            policy=policy,
            train_collector=collector_for(policy, size=40),
            test_collector=None,
            max_epoch=1,
            step_per_epoch=80,
            step_per_collect=80,
            repeat_per_collect=1,
            batch_size=8,
        )


def test_a_meta_collector_makes_buffers_of_whole_collects():
    collector = MetaCollector(
        build("ppo", hidden=(4,)), lambda task: dear_envs(3), step_per_collect=20, num_envs=3
    )
    collector.start(0, [1, 2, 3])
    for _ in range(2):
        collector.collect()
        assert len(collector.buffer) == collector.buffer.maxsize == 21
        assert collector.buffer.episodes.steps.tolist() == [7, 7, 7]
    collector.close()


def test_steps_are_counted_until_the_buffer_is_emptied():
    policy = build("sac", hidden=(4,))
    collector = collector_for(policy, env=DearEnv, num_envs=2, size=10)
    log = collector.buffer.episodes
    assert log.steps.tolist() == [0]
    collector.collect(n_step=12)
    collector.collect(n_step=8, random=True)
    assert log.steps.tolist() == [10, 10]
    collector.collect(n_episode=3)  # Both environments were in the middle of an episode of 20 steps.
    assert sorted(log.steps.tolist()) == [20, 40]
    collector.reset_buffer(keep_statistics=True)
    assert log.steps.tolist() == [0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"buffer_size": 3}, "buffer_size must be >= 4, one place for each training environment, got 3"),
        ({"buffer_size": 5, "num_envs": 6}, "buffer_size must be >= 6, one place for each .* got 5"),
        ({"buffer_size": 7}, "buffer_size must be >= 8, which is estimation_step=2 for each of 4 .* got 7"),
        ({"buffer_size": 11, "estimation_step": 3}, "buffer_size must be >= 12, which is .*=3 .* got 11"),
        (
            {"buffer_size": 15, "cost_estimation_step": 4},
            "buffer_size must be >= 16, which is cost_estimation_step=4 for each of 4 .* got 15",
        ),
    ],
)
@pytest.mark.parametrize("name", ["cvpo", "td3_lag"])
def test_a_size_that_cannot_work_is_no_config(name, settings, words):
    with pytest.raises(ValueError, match=words):
        small_config(name, **settings)
    assert small_config(name, buffer_size=8).training.buffer_size == 8


def test_a_buffer_has_a_place_for_each_environment():
    with pytest.raises(ValueError, match=r"total_size must be >= 4, one place for each .* got 3"):
        CostVectorReplayBuffer(3, 4)
