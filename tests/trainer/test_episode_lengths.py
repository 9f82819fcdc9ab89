"""Training episodes that do not last as long as the policy assumes are warned about once."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from tianshou.env import DummyVectorEnv
from toys.envs import EarlyEndEnv, LineEnv
from toys.policies import T, build

from fsrl_ext.data import CostCollector, CostCollectStats, CostVectorReplayBuffer
from fsrl_ext.trainer import CostOffpolicyTrainer, CostOnpolicyTrainer
from fsrl_ext.trainer.episode_lengths import EpisodeLengths

ENVS = 4


def collector_for(policy, env, horizon=T, size=4000):
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(env(), horizon)] * ENVS)
    return CostCollector(policy, envs, CostVectorReplayBuffer(size, ENVS))


def messages(run):
    """Return the texts of all warnings that a function gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(x.message) for x in caught]


def off_policy(policy, env, horizon=T):
    """Train by hand for eight collects, in which every environment reaches the time limit twice."""
    CostOffpolicyTrainer(
        policy=policy,
        train_collector=collector_for(policy, env, horizon),
        test_collector=None,
        max_epoch=1,
        step_per_epoch=2 * T * ENVS,
        step_per_collect=T * ENVS // 4,
        batch_size=8,
        update_per_step=0.01,
        show_progress=False,
    ).run()


def on_policy(policy, env, steps):
    """Train by hand for several collects of ``steps`` steps in each environment."""
    CostOnpolicyTrainer(
        policy=policy,
        train_collector=collector_for(policy, env, size=ENVS * steps),
        test_collector=None,
        max_epoch=1,
        step_per_epoch=2 * T * ENVS,
        step_per_collect=ENVS * steps,
        repeat_per_collect=1,
        batch_size=32,
        show_progress=False,
    ).run()


def test_early_ends_that_nobody_declared_are_warned_about_once():
    (message,) = messages(lambda: off_policy(build("cvpo", cost_level="critic"), EarlyEndEnv))
    episodes = ENVS * (T // 3)
    assert f"{episodes} of {episodes} training episodes (100%) ended before max_episode_steps={T}" in message
    assert "the mean length is 3.0 steps. CVPOPolicy takes" in message
    assert f"last {T} steps, so its constraint is stricter than cost_limit" in message
    assert "docs/concepts.md, 'Episodes that end early'" in message


def test_episodes_that_outlast_the_policys_limit_loosen_the_constraint():
    (message,) = messages(lambda: off_policy(build("cvpo", cost_level="critic"), LineEnv, T + 5))
    assert f"(100%) lasted longer than max_episode_steps={T}; the mean length is {T + 5}.0 steps" in message
    assert "looser than cost_limit" in message


@pytest.mark.parametrize(
    ("policy", "env"),
    [
        (("cvpo", {"cost_level": "critic"}), LineEnv),
        (("cvpo", {"cost_level": "critic", "cost_limit": float("inf")}), EarlyEndEnv),
        (("cvpo", {}), EarlyEndEnv),
        (("sac", {}), EarlyEndEnv),
        (("sac", {"multiplier_source": "critic"}), EarlyEndEnv),
    ],
)
def test_there_is_no_warning_where_no_length_is_assumed_or_the_length_is_right(policy, env):
    name, settings = policy
    assert messages(lambda: off_policy(build(name, **settings), env)) == []


def test_a_setting_that_assumes_the_length_is_seen():
    policy = build("sac", multiplier_source="critic", cost_level="critic")
    (message,) = messages(lambda: off_policy(policy, EarlyEndEnv))
    assert "SACLagPolicy takes episodes to last" in message


def test_on_policy_collects_without_an_episode_assume_the_length():
    (message,) = messages(lambda: on_policy(build("cpo"), EarlyEndEnv, 2))
    assert "CPOPolicy takes episodes to last" in message
    assert messages(lambda: on_policy(build("cpo"), EarlyEndEnv, 6)) == []


def stats_of(*lens, steps):
    return CostCollectStats(n_collected_steps=steps, lens=np.array(lens, dtype=int))


def test_the_share_waits_until_full_episodes_can_have_ended():
    policy = build("cvpo", cost_level="critic")
    lengths = EpisodeLengths(policy, num_envs=2)
    assert messages(lambda: lengths.see(stats_of(5, steps=2 * T - 2))) == []
    (message,) = messages(lambda: lengths.see(stats_of(T, T, T, steps=2)))
    assert "1 of 4 training episodes (25%) ended before" in message
    assert f"the mean length is {(5 + 3 * T) / 4:.1f} steps" in message
    assert messages(lambda: lengths.see(stats_of(5, steps=100))) == []
    short = EpisodeLengths(policy, num_envs=2)
    assert len(messages(lambda: short.see(stats_of(5, steps=10), last=True))) == 1
