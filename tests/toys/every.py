"""Build, feed and teach any policy by the same calls, the meta-learner included."""

from __future__ import annotations

import inspect

import torch

from fsrl_ext.policy import MetaCPOPolicy
from toys import meta
from toys.policies import POLICIES, build
from toys.training import collect, collector_for, update

META = "meta_cpo"
EVERY = (*POLICIES, META)
TARGETS = (0.3, 0.7)

# The arguments of a constructor that a policy keeps as attributes of the same name.
KEPT = ("actor", "actor_optim", "critic", "critic_optim", "action_space", "cost_limit", "max_episode_steps")


def make(name, **settings):
    """Return a fresh policy, always with the same parameters.

    :param settings: arguments of :func:`toys.policies.build` or :func:`toys.meta.build`.
    """
    return meta.build(**settings) if name == META else build(name, **settings)


def rebuild(policy, **changes):
    """Return another policy of the same class and with the same networks, limits and settings.

    :param changes: arguments of the constructor that replace the policy's own.
    """
    taken = inspect.signature(type(policy)).parameters
    arguments = {name: getattr(policy, name) for name in KEPT if name in taken}
    if "obs_dim" in taken:
        arguments["obs_dim"] = 2
    return type(policy)(**{**arguments, "config": policy.config, **changes})


def data_for(policy, **kwargs):
    """Return a collector of the policy's toy problem.

    :param kwargs: see the families' functions ``collector_for``.
    """
    if isinstance(policy, MetaCPOPolicy):
        return meta.collector_for(policy, steps=100, **kwargs)
    return collector_for(policy, **kwargs)


def learn(policy, collector, cycles=2, updates=3):
    """Learn for some cycles of one collect each, or meta-iterations; return the newest logged numbers.

    :param updates: gradient steps or, on-policy, passes over the data of each cycle.
    """
    metrics = {}
    for i in range(cycles):
        if isinstance(policy, MetaCPOPolicy):
            metrics |= meta.iterate(policy, collector, TARGETS, seed=1000 * i)
        else:
            collect(policy, collector)
            metrics |= update(policy, collector, updates).metrics
    return metrics


def optimisers(policy):
    """Return the policy's optimisers by name."""
    return {name: x for name, x in vars(policy).items() if isinstance(x, torch.optim.Optimizer)}
