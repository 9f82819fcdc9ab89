"""The loop on plain arrays does the same as Tianshou's own loop, bit for bit."""

from copy import deepcopy
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from toys.envs import EarlyEndEnv, LineEnv
from toys.policies import build_cvpo

from fsrl_ext.data import CostCollector, CostReplayBuffer, CostVectorReplayBuffer
from fsrl_ext.data.counters import BufferCounters
from fsrl_ext.data.errors import NonFiniteStepError
from fsrl_ext.data.row_writer import RowWriter

N = 4


def env(i):
    if i == 1:
        return EarlyEndEnv()
    return gym.wrappers.TimeLimit(LineEnv(), 7 + i)


def collector(fast, *, size=200, policy=None, **kwargs):
    envs = DummyVectorEnv([lambda i=i: env(i) for i in range(N)])
    made = CostCollector(policy or build_cvpo(), envs, CostVectorReplayBuffer(size, N), fast=fast, **kwargs)
    made.reset(gym_reset_kwargs={"seed": list(range(N))})
    return made


def counters(buffer):
    parts = {name: values.tolist() for name, values in asdict(BufferCounters.of(buffer)).items()}
    return parts, buffer.last_index.tolist(), len(buffer)


def run(fast, actions, **kwargs):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - Tianshou's exploration noise draws from it
    made = collector(fast, **kwargs)
    for space in made.env.action_space:
        space.seed(0)
    stats = []
    with policy_within_training_step(made.policy):
        for action in actions:
            stats.append(action(made))
    return made, stats


def steps(n, **kwargs):
    return lambda made: made.collect(n_step=n, **kwargs)


def episodes(n):
    return lambda made: made.collect(n_episode=n)


def clear(made):
    made.reset_buffer(keep_statistics=True)


@pytest.mark.parametrize(
    ("kwargs", "actions"),
    [
        ({}, [steps(40), steps(44), steps(100)]),
        ({"size": 40}, [steps(20), steps(80), steps(20)]),  # The buffer wraps around.
        ({}, [steps(12), steps(20), clear, steps(24)]),  # The buffer is cleared in the middle of episodes.
        ({}, [episodes(4), episodes(11), steps(8)]),  # Environments leave one after the other.
        ({"discount": 0.9}, [steps(40), steps(60)]),
        ({}, [steps(40, random=True), steps(60, random=True), steps(20)]),
        ({"exploration_noise": True}, [steps(20), steps(40)]),
    ],
)
def test_same_buffer_and_statistics_as_tianshous_way(kwargs, actions, monkeypatch):
    written = []
    add = RowWriter.add
    monkeypatch.setattr(RowWriter, "add", lambda *a, **k: written.append(1) or add(*a, **k))
    plain, plain_stats = run(False, actions, **kwargs)
    assert not written
    fast, fast_stats = run(True, actions, **kwargs)
    assert written
    assert counters(fast.buffer) == counters(plain.buffer)
    for key, values in plain.buffer._meta.items():
        np.testing.assert_array_equal(fast.buffer._meta[key], values, err_msg=key)
        assert fast.buffer._meta[key].dtype == values.dtype
    assert fast.collect_step == plain.collect_step
    assert fast.collect_episode == plain.collect_episode
    np.testing.assert_array_equal(fast._pre_collect_obs_RO, plain._pre_collect_obs_RO)
    for one, other in zip(fast_stats, plain_stats, strict=True):
        if one is None:
            continue
        for name in ("n_collected_steps", "n_collected_episodes", "returns_stat", "lens_stat", "costs_stat"):
            assert getattr(one, name) == getattr(other, name), name
        for name in ("returns", "lens", "costs", "discounted_costs", "discounted_returns"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_a_policy_with_a_state_goes_tianshous_way():
    policy = build_cvpo()
    forward = type(policy).forward

    class Recurrent(type(policy)):
        def forward(self, batch, state=None, **kwargs):
            return Batch(act=forward(self, batch).act, state=torch.zeros(len(batch.obs), 1))

    policy.__class__ = Recurrent
    made = collector(True, policy=policy)
    made.collect(n_step=8)
    made.collect(n_step=8)
    assert "policy" in made.buffer._meta.get_keys()
    assert len(made.buffer) == 16


def test_an_error_in_the_environment_leaves_a_consistent_buffer():
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(LineEnv(nan_at=30), 9)] * 2)
    made = CostCollector(build_cvpo(), envs, CostVectorReplayBuffer(100, 2))
    made.reset()
    made.collect(n_step=20)
    with pytest.raises(NonFiniteStepError, match="rew of environment 0 is not finite"):
        made.collect(n_step=60)
    assert len(made.buffer) == 58
    reference = deepcopy(made.buffer)
    assert counters(reference) == counters(made.buffer)
    made.reset_env()
    made.collect(n_step=20)
    assert len(made.buffer) == 78
    assert np.isfinite(made.buffer.rew[made.buffer.sample_indices(0)]).all()


def test_single_buffers_are_written_too():
    made = CostCollector(build_cvpo(), gym.wrappers.TimeLimit(LineEnv(), 9), CostReplayBuffer(50))
    made.reset()
    made.collect(n_step=10)
    made.collect(n_step=60)
    assert made.fast
    assert len(made.buffer) == 50
    assert made.buffer.done[made.buffer.sample_indices(0)].sum() == 5


def test_writers_refuse_buffers_without_data():
    with pytest.raises(ValueError, match="needs a buffer with data"):
        RowWriter(CostReplayBuffer(10))
