"""Every policy on toy problems: how to build, to collect and to train one."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step
from toy import TwoStateEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.net import DeterministicActor, EnsembleCritic, GaussianActor, OnpolicyActor, ValueCritic
from fsrl_ext.policy import (
    CPOPolicy,
    CVPOPolicy,
    DDPGLagPolicy,
    FOCOPSPolicy,
    PPOLagPolicy,
    SACLagPolicy,
    TD3LagPolicy,
    TRPOLagPolicy,
)
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy

T = 20
GAMMA = 0.9
LAGRANGIAN = {"sac": SACLagPolicy, "ddpg": DDPGLagPolicy, "td3": TD3LagPolicy}
OFFPOLICY = {"cvpo": CVPOPolicy, **LAGRANGIAN}
ONPOLICY_LAGRANGIAN = {"trpo": TRPOLagPolicy, "ppo": PPOLagPolicy, "focops": FOCOPSPolicy}
ONPOLICY = {"cpo": CPOPolicy, **ONPOLICY_LAGRANGIAN}
POLICIES = {**OFFPOLICY, **ONPOLICY}

# What makes each of them learn the toy problems fast.
LEARN = {
    "cvpo": {"threshold": "stationary", "kl_bound": 0.1, "kl_bound_mean": 0.02, "kl_bound_scale": 0.01},
    "sac": {"entropy": "fixed", "alpha": 0.002},
    "ddpg": {"exploration_std": 0.2},
    "td3": {"exploration_std": 0.2, "policy_delay": 1, "target_std": 0.05},
    "cpo": {"kl_bound": 0.02},
    "trpo": {"kl_bound": 0.02},
    "ppo": {},
    "focops": {"rescale": True},
}
PID = {"multiplier_gains": (0.2, 0.02, 0.0)}


def build(
    name,
    *,
    cost_limit=5.0,
    num_costs=1,
    hidden=(32, 32),
    lr=3e-3,
    device="cpu",
    space=None,
    ensemble=1,
    **settings,
):
    """A fresh policy for two observations and one action, always with the same parameters."""
    torch.manual_seed(0)
    act_dim = 1 if space is None else space.shape[0]
    common = {
        "action_space": gym.spaces.Box(-1, 1, (1,)) if space is None else space,
        "cost_limit": cost_limit,
        "max_episode_steps": T,
        **{"gamma": GAMMA, **settings},
    }
    if name in ONPOLICY:
        actor = OnpolicyActor(2, act_dim, hidden_sizes=hidden, initial_std=0.5).to(device)
        critic = ValueCritic(2, num_costs=num_costs, hidden_sizes=hidden).to(device)
        if name in ("ppo", "focops"):
            common["actor_optim"] = torch.optim.Adam(actor.parameters(), lr=lr)
        critic_optim = torch.optim.Adam(critic.parameters(), lr=lr)
        arguments = {"actor": actor, "critic": critic, "critic_optim": critic_optim, "obs_dim": 2}
        return ONPOLICY[name](**arguments, **common).to(device)
    if name in ("ddpg", "td3"):
        actor = DeterministicActor(2, act_dim, hidden_sizes=hidden).to(device)
    else:
        kind = {"bounded": False} if name == "sac" else {"initial_std": 0.2}
        actor = GaussianActor(2, act_dim, hidden_sizes=hidden, **kind).to(device)
    critic = EnsembleCritic(
        2,
        act_dim,
        num_costs=num_costs,
        hidden_sizes=hidden,
        reward_ensemble=ensemble,
        cost_ensemble=ensemble,
    ).to(device)
    return OFFPOLICY[name](
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters(), lr=lr),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=lr),
        **common,
    ).to(device)


def learner(name, **settings):
    """As :func:`build`, with settings that learn the toy problems."""
    shared = {"lr": 1e-3 if name in LAGRANGIAN else 3e-3, **({} if name in ("cvpo", "cpo") else PID)}
    if name in LAGRANGIAN:
        shared["multiplier_init"] = 2.0
    return build(name, **{**shared, **LEARN[name], **settings})


def collector_for(policy, *, env=TwoStateEnv, num_envs=4, size=50_000, **kwargs):
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(env(**kwargs), T)] * num_envs)
    buffer = CostVectorReplayBuffer(size, num_envs, num_costs=kwargs.get("num_costs", 1))
    collector = CostCollector(policy, envs, buffer)
    collector.reset_buffer()
    collector.reset_env(gym_reset_kwargs={"seed": 0})
    collector.env.seed(0)
    return collector


def collect(policy, collector, steps=200, **kwargs):
    if isinstance(policy, OnpolicyPolicy):
        collector.reset_buffer(keep_statistics=True)
    with policy_within_training_step(policy):
        return collector.collect(n_step=steps, **kwargs)


def update(policy, collector, times=1, batch_size=64):
    if isinstance(policy, OnpolicyPolicy):
        with policy_within_training_step(policy):
            stats = policy.update(0, collector.buffer, batch_size=batch_size, repeat=times)
        return stats
    with policy_within_training_step(policy):
        for _ in range(times):
            stats = policy.update(batch_size, collector.buffer)
    return stats


def train(policy, collector, cycles=20, updates=40):
    """Cycles of 200 steps and some updates; the last update's statistics.

    On-policy learning is slower on these problems: more and longer cycles, of some passes each.
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
    """``x = (1 + a) / 2`` of the deterministic policy in both states ``[2]``."""
    with torch.no_grad():
        act = policy(Batch(obs=np.eye(2, dtype=np.float32), info={})).act.cpu()
    return ((1 + act.clamp(-1, 1).view(-1)) / 2).numpy()


def measure(policy, *, episodes=200, num_costs=1):
    """Mean return and mean costs ``[C]`` of training episodes."""
    collector = collector_for(policy, num_envs=10, num_costs=num_costs)
    with policy_within_training_step(policy):
        stats = collector.collect(n_episode=episodes)
    return float(stats.returns.mean()), stats.costs.mean(0)
