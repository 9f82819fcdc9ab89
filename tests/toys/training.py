"""Collect with a policy of :mod:`toys.policies`, update it, and measure what it has learnt."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy
from toys.cmdps import TwoStateEnv
from toys.envs import LineEnv
from toys.policies import T


def collector_for(policy, *, env=TwoStateEnv, num_envs=4, size=50_000, limit=T, discount=None, **kwargs):
    """Return a collector over ``num_envs`` seeded environments with episodes of at most ``limit`` steps.

    :param discount: of the discounted costs that are counted, if any.
    :param kwargs: arguments of the environment.
    """
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(env(**kwargs), limit)] * num_envs)
    buffer = CostVectorReplayBuffer(size, num_envs, num_costs=kwargs.get("num_costs", 1))
    collector = CostCollector(policy, envs, buffer, discount=discount)
    collector.reset_buffer()
    collector.reset_env(gym_reset_kwargs={"seed": 0})
    collector.env.seed(0)
    return collector


def collect(policy, collector, steps=200, **kwargs):
    """Collect training steps; an on-policy policy's buffer is emptied before."""
    if isinstance(policy, OnpolicyPolicy):
        collector.reset_buffer(keep_statistics=True)
    with policy_within_training_step(policy):
        return collector.collect(n_step=steps, **kwargs)


def collected(policy, steps=200, *, env=LineEnv, **kwargs):
    """Return a collector that has collected training steps.

    :param kwargs: see :func:`collector_for`.
    """
    collector = collector_for(policy, env=env, **kwargs)
    collect(policy, collector, steps)
    return collector


def update(policy, collector, times=1, batch_size=64):
    """Make ``times`` gradient steps or, on-policy, passes over the data; return the last statistics."""
    if isinstance(policy, OnpolicyPolicy):
        with policy_within_training_step(policy):
            stats = policy.update(0, collector.buffer, batch_size=batch_size, repeat=times)
        return stats
    with policy_within_training_step(policy):
        for _ in range(times):
            stats = policy.update(batch_size, collector.buffer)
    return stats


def train(policy, collector, cycles=20, updates=40):
    """Train for some cycles of 200 steps and ``updates`` updates; return the last update's statistics.

    On-policy policies learn these problems more slowly, so they get three times as many cycles, of 800 steps
    and 8 passes each.
    """
    if isinstance(policy, OnpolicyPolicy):
        for _ in range(3 * cycles):
            collect(policy, collector, 800)
            stats = update(policy, collector, 8, batch_size=128)
        return stats
    for _ in range(cycles):
        collect(policy, collector)
        stats = update(policy, collector, updates, batch_size=128)
    return stats


def deterministic(policy):
    """Return ``x = (1 + a) / 2`` of the deterministic policy in both states, ``[2]``, of `TwoStateEnv`."""
    with torch.no_grad():
        act = policy(Batch(obs=np.eye(2, dtype=np.float32), info={})).act.cpu()
    return ((1 + act.clamp(-1, 1).view(-1)) / 2).numpy()


def measure(policy, *, episodes=200, num_costs=1):
    """Return mean return and mean costs ``[C]`` of training episodes in :class:`TwoStateEnv`."""
    collector = collector_for(policy, num_envs=10, num_costs=num_costs)
    with policy_within_training_step(policy):
        stats = collector.collect(n_episode=episodes)
    return float(stats.returns.mean()), stats.costs.mean(0)
