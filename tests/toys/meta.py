"""Build a meta-learner for the bandits of :class:`toys.envs.AimEnv`, and run one meta-iteration by hand."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data import MetaCollector
from fsrl_ext.functional.conjugate_gradient import flatten
from fsrl_ext.net import OnpolicyActor, ValueCritic
from fsrl_ext.policy import MetaCPOPolicy
from toys.envs import AimEnv
from toys.tasks import FAMILY_HORIZON as T

ENVS = 5
FAST = {"cg_iterations": 8, "max_backtracks": 10}


def build(*, cost_limit=6.0, num_costs=1, optimiser="lbfgs", hidden=(6,), device="cpu", **settings):
    """Return a fresh policy, always with the same parameters.

    :param optimiser: "lbfgs" or "adam", which fits the critic.
    :param settings: further arguments of the policy.
    """
    torch.manual_seed(0)
    actor = OnpolicyActor(2, 1, hidden_sizes=hidden, initial_std=0.5).to(device)
    critic = ValueCritic(2, num_costs=num_costs, hidden_sizes=(8,)).to(device)
    optim = (
        torch.optim.LBFGS(critic.parameters(), max_iter=8, line_search_fn="strong_wolfe")
        if optimiser == "lbfgs"
        else torch.optim.Adam(critic.parameters(), lr=3e-3)
    )
    return MetaCPOPolicy(
        actor=actor,
        critic=critic,
        critic_optim=optim,
        action_space=gym.spaces.Box(-1, 1, (1,)),
        cost_limit=cost_limit,
        max_episode_steps=T,
        obs_dim=2,
        **{**FAST, "gamma": 0.9, "inner_steps": 2, "num_tasks": 2, "kl_bound": 0.05, **settings},
    ).to(device)


def collector_for(policy, *, steps=200, num_costs=1, discount=None):
    """Return a collector whose tasks are the bandits' targets.

    :param discount: of the discounted costs that are counted, if any.
    """

    def envs(target):
        def make():
            return gym.wrappers.TimeLimit(AimEnv(target, num_costs), T)

        return DummyVectorEnv([make] * ENVS)

    return MetaCollector(
        policy, envs, step_per_collect=steps, num_envs=ENVS, num_costs=num_costs, discount=discount
    )


def adapt(policy, collector, target, *, record=False, seed=0, steps=None):
    """Adapt to one bandit by K collects and updates, and collect once more.

    :param record: whether the meta-step is to use this task.
    :param steps: K; None stands for the policy's ``inner_steps``.
    :return: the statistics of all K + 1 collects.
    """
    collector.start(target, range(seed, seed + ENVS))
    policy.begin_task(record=record)
    statistics = []
    with policy_within_training_step(policy):
        for k in range((policy.config.inner_steps if steps is None else steps) + 1):
            if k:
                policy.update(0, collector.buffer)
            statistics.append(collector.collect())
    return statistics


def finish(policy, collector):
    """Give the policy the data of the adapted policy."""
    with policy_within_training_step(policy):
        policy.finish_task(collector.buffer)


def iterate(policy, collector, targets, seed=0):
    """Run one meta-iteration over some bandits; return what ``meta_step`` logs."""
    for i, target in enumerate(targets):
        adapt(policy, collector, target, record=True, seed=seed + 100 * i)
        finish(policy, collector)
    return policy.meta_step()


def theta(policy):
    """Return a copy of the meta-parameters ``[D]``."""
    return flatten(policy.meta_actor.parameters()).detach().clone()


def acting(policy):
    """Return a copy of the parameters ``[D]`` that act, which adaptation changes."""
    return flatten(policy.actor.parameters()).detach().clone()


def targets_of(seed, count=2, low=0.2, high=0.8):
    """Draw targets of bandits."""
    return np.random.default_rng(seed).uniform(low, high, count).tolist()
