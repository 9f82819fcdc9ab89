"""Build every policy with small networks, by default for two observations and one action."""

from __future__ import annotations

import functools

import gymnasium as gym
import torch

from fsrl_ext.net import DeterministicActor, EnsembleCritic, GaussianActor, OnpolicyActor, ValueCritic
from fsrl_ext.policy import (
    CPOPolicy,
    CVPOConfig,
    CVPOPolicy,
    DDPGLagPolicy,
    FOCOPSPolicy,
    PPOLagPolicy,
    SACLagPolicy,
    TD3LagPolicy,
    TRPOLagPolicy,
)
from toys.tasks import HORIZON

T = HORIZON
GAMMA = 0.9
LAGRANGIAN = {"sac": SACLagPolicy, "ddpg": DDPGLagPolicy, "td3": TD3LagPolicy}
OFFPOLICY = {"cvpo": CVPOPolicy, **LAGRANGIAN}
ONPOLICY_LAGRANGIAN = {"trpo": TRPOLagPolicy, "ppo": PPOLagPolicy, "focops": FOCOPSPolicy}
ONPOLICY = {"cpo": CPOPolicy, **ONPOLICY_LAGRANGIAN}
POLICIES = {**OFFPOLICY, **ONPOLICY}

# The settings with which each policy learns the toy problems fast.
LEARN = {
    "cvpo": {"kl_bound": 0.1, "kl_bound_mean": 0.02, "kl_bound_scale": 0.01},
    "sac": {"entropy": "fixed", "alpha": 0.002},
    "ddpg": {"exploration_std": 0.2},
    "td3": {"exploration_std": 0.2, "policy_delay": 1, "target_std": 0.05},
    "cpo": {"kl_bound": 0.02},
    "trpo": {"kl_bound": 0.02},
    "ppo": {},
    "focops": {"rescale": True},
}
PID = {"multiplier_gains": (1.0, 0.1, 0.0)}
# Standard deviation of an untrained stochastic actor; SAC's actor keeps its default.
INITIAL_STD = {"cvpo": 0.2, **dict.fromkeys(ONPOLICY, 0.5)}


def small_actor(name, *, obs_dim=2, act_dim=1, hidden=(32, 32), initial_std=None):
    """Return the actor that a policy's name asks for.

    :param initial_std: see :data:`INITIAL_STD`, which None stands for.
    """
    if name in ("ddpg", "td3"):
        return DeterministicActor(obs_dim, act_dim, hidden_sizes=hidden)
    std = INITIAL_STD.get(name) if initial_std is None else initial_std
    settings = {} if std is None else {"initial_std": std}
    if name in ONPOLICY:
        return OnpolicyActor(obs_dim, act_dim, hidden_sizes=hidden, **settings)
    return GaussianActor(obs_dim, act_dim, hidden_sizes=hidden, bounded=name != "sac", **settings)


def build(
    name,
    *,
    cost_limit=5.0,
    num_costs=1,
    actor=None,
    critic=None,
    initial_std=None,
    hidden=(32, 32),
    lr=3e-3,
    device="cpu",
    obs_dim=2,
    space=None,
    ensemble=1,
    **settings,
):
    """Return a fresh policy, always with the same parameters.

    :param actor: used instead of :func:`small_actor`.
    :param critic: used instead of a network, with ``critic_optim`` among the settings;
        off-policy only.
    :param space: an action space other than one action in [-1, 1].
    :param ensemble: members of the critic of each signal; off-policy only.
    :param settings: further arguments of the policy.
    """
    torch.manual_seed(0)
    act_dim = 1 if space is None else space.shape[0]
    if actor is None:
        actor = small_actor(name, obs_dim=obs_dim, act_dim=act_dim, hidden=hidden, initial_std=initial_std)
    actor = actor.to(device)
    if name in ONPOLICY:
        critic = ValueCritic(obs_dim, num_costs=num_costs, hidden_sizes=hidden).to(device)
        settings = {"obs_dim": obs_dim, **settings}
    elif critic is None:
        sizes = {"reward_ensemble": ensemble, "cost_ensemble": ensemble}
        critic = EnsembleCritic(obs_dim, act_dim, num_costs=num_costs, hidden_sizes=hidden, **sizes).to(
            device
        )
    if name not in ("cpo", "trpo"):  # their step has no learning rate
        settings["actor_optim"] = torch.optim.Adam(actor.parameters(), lr=lr)
    return POLICIES[name](
        actor=actor,
        critic=critic,
        action_space=gym.spaces.Box(-1, 1, (1,)) if space is None else space,
        cost_limit=cost_limit,
        **{
            "gamma": GAMMA,
            "max_episode_steps": T,
            "critic_optim": torch.optim.Adam(critic.parameters(), lr=lr),
            **settings,
        },
    ).to(device)


# Settings of off-policy policies with which critics learn in the units of reward and cost.
RAW = {"normalise_signals": False, "bound_targets": False}

# CVPO with its own defaults for discount and exploration.
build_cvpo = functools.partial(build, "cvpo", initial_std=0.6, gamma=CVPOConfig().gamma)


def learner(name, **settings):
    """Return a policy as :func:`build` does, with settings that learn the toy problems."""
    shared = {"lr": 1e-3 if name in LAGRANGIAN else 3e-3, **({} if name in ("cvpo", "cpo") else PID)}
    if name in LAGRANGIAN:
        shared["multiplier_init"] = 1.0
    return build(name, **{**shared, **LEARN[name], **settings})


def tensors(policy):
    """Copies of the parameters and buffers of a policy, by name."""
    return {k: v.clone() for k, v in policy.state_dict().items() if isinstance(v, torch.Tensor)}


def assert_same_state(first, second):
    """Assert that two state dictionaries are the same, bit for bit."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        same = torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
        assert same, key
