"""Episodes on seeds: each result belongs to its seed, whenever its episode ended."""

import gymnasium as gym
import numpy as np
import pytest
from tianshou.env import DummyVectorEnv
from toys.envs import SeedLengthEnv
from toys.policies import build

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.trainer import evaluate_policy

SEEDS = range(100, 112)


def collector_of(policy, num_envs, **kwargs):
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(SeedLengthEnv(num_costs=2), 8)] * num_envs)
    return CostCollector(policy, envs, CostVectorReplayBuffer(1000, num_envs, num_costs=2), **kwargs)


def one_by_one(policy):
    """Return returns ``[E]``, costs ``[E, C]`` and lengths ``[E]`` of episodes that are played alone."""
    collector, parts = collector_of(policy, 1), []
    for seed in SEEDS:
        collector.reset(gym_reset_kwargs={"seed": [seed]})
        parts.append(collector.collect(n_episode=1))
    return tuple(np.concatenate([getattr(x, name) for x in parts]) for name in ("returns", "costs", "lens"))


@pytest.fixture(scope="module")
def policies():
    """Two policies that act differently."""
    return tuple(build(name, num_costs=2, cost_limit=(5.0, 5.0)) for name in ("cvpo", "cpo"))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("num_envs", [3, 4, 12])
def test_each_result_belongs_to_its_seed(policies, num_envs, fast):
    returns, costs, lens = one_by_one(policies[0])
    # Side by side the episodes do not end in the order of their seeds, and some reach the time limit.
    assert any((np.diff(group) < 0).any() for group in lens.reshape(-1, num_envs))
    assert len({*lens.tolist()}) > 4
    assert lens.max() == 8
    together = evaluate_policy(
        collector_of(policies[0], num_envs, fast=fast), SEEDS, cost_limit=(1.0, 1.0), env_step=7
    )
    assert together.seeds == tuple(SEEDS)
    np.testing.assert_allclose(together.returns, returns, rtol=1e-5)
    np.testing.assert_allclose(together.costs, costs, rtol=1e-5)


def test_two_policies_are_compared_seed_by_seed(policies):
    first, second = (evaluate_policy(collector_of(p, 6), SEEDS, cost_limit=(1.0, 1.0)) for p in policies)
    assert first.seeds == second.seeds
    alone = [one_by_one(p) for p in policies]
    np.testing.assert_allclose(
        first.returns - second.returns, alone[0][0] - alone[1][0], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(first.costs - second.costs, alone[0][1] - alone[1][1], rtol=1e-4, atol=1e-6)


def test_a_collect_says_which_environment_played_each_episode(policies):
    collector = collector_of(policies[0], 4)
    collector.reset(gym_reset_kwargs={"seed": list(SEEDS[:4])})
    lens = one_by_one(policies[0])[2][:4]
    stats = collector.collect(n_episode=4)
    np.testing.assert_array_equal(stats.lens, lens[stats.env_ids])
    assert sorted(stats.env_ids) == [0, 1, 2, 3]
    joined = type(stats).joined([stats, stats], n_collected_steps=0)
    np.testing.assert_array_equal(joined.env_ids, [*stats.env_ids, *stats.env_ids])
