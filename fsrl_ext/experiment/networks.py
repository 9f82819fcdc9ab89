"""Networks, optimisers and policies from a config and a task's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fsrl_ext.net import DeterministicActor, EnsembleCritic, GaussianActor, OnpolicyActor, ValueCritic
from fsrl_ext.policy import (
    CPOPolicy,
    CVPOPolicy,
    DDPGLagPolicy,
    FOCOPSPolicy,
    MetaCPOPolicy,
    PPOLagPolicy,
    SACLagPolicy,
    TD3LagPolicy,
    TRPOLagPolicy,
)

if TYPE_CHECKING:
    from fsrl_ext.experiment.config import ExperimentConfig
    from fsrl_ext.experiment.task import TaskSpec


def build_cvpo(config: ExperimentConfig, spec: TaskSpec) -> CVPOPolicy:
    """A CVPO policy with fresh networks on the config's device."""
    actor = _gaussian(config, spec, bounded=True)
    return CVPOPolicy(**_arguments(config, spec, actor)).to(config.device)


def build_sac(config: ExperimentConfig, spec: TaskSpec) -> SACLagPolicy:
    """A SAC policy, with or without a constraint."""
    actor = _gaussian(config, spec, bounded=False)
    return SACLagPolicy(**_arguments(config, spec, actor)).to(config.device)


def build_ddpg(config: ExperimentConfig, spec: TaskSpec) -> DDPGLagPolicy:
    """A DDPG policy, with or without a constraint."""
    return DDPGLagPolicy(**_arguments(config, spec, _deterministic(config, spec))).to(config.device)


def build_td3(config: ExperimentConfig, spec: TaskSpec) -> TD3LagPolicy:
    """A TD3 policy, with or without a constraint."""
    return TD3LagPolicy(**_arguments(config, spec, _deterministic(config, spec))).to(config.device)


def build_cpo(config: ExperimentConfig, spec: TaskSpec) -> CPOPolicy:
    """A CPO policy."""
    return CPOPolicy(**_onpolicy_arguments(config, spec)).to(config.device)


def build_trpo(config: ExperimentConfig, spec: TaskSpec) -> TRPOLagPolicy:
    """A TRPO policy, with or without a constraint."""
    return TRPOLagPolicy(**_onpolicy_arguments(config, spec)).to(config.device)


def build_ppo(config: ExperimentConfig, spec: TaskSpec) -> PPOLagPolicy:
    """A PPO policy, with or without a constraint."""
    return PPOLagPolicy(**_with_actor_optim(config, spec)).to(config.device)


def build_focops(config: ExperimentConfig, spec: TaskSpec) -> FOCOPSPolicy:
    """A FOCOPS policy."""
    return FOCOPSPolicy(**_with_actor_optim(config, spec)).to(config.device)


def build_meta_cpo(config: ExperimentConfig, spec: TaskSpec) -> MetaCPOPolicy:
    """A meta-learner for the tasks of a family."""
    return MetaCPOPolicy(**_onpolicy_arguments(config, spec)).to(config.device)


def _gaussian(config: ExperimentConfig, spec: TaskSpec, *, bounded: bool) -> GaussianActor:
    return GaussianActor(
        spec.obs_dim,
        spec.act_dim,
        hidden_sizes=config.training.hidden_sizes,
        covariance=config.training.covariance,
        initial_std=config.training.initial_std,
        bounded=bounded,
    )


def _deterministic(config: ExperimentConfig, spec: TaskSpec) -> DeterministicActor:
    return DeterministicActor(spec.obs_dim, spec.act_dim, hidden_sizes=config.training.hidden_sizes)


def _arguments(config: ExperimentConfig, spec: TaskSpec, actor: nn.Module) -> dict[str, Any]:
    """What every off-policy actor-critic is made of, with fresh critics and optimisers."""
    training = config.training
    actor = actor.to(config.device)
    critic = EnsembleCritic(
        spec.obs_dim,
        spec.act_dim,
        num_costs=len(config.cost_limit),
        hidden_sizes=training.critic_hidden_sizes or training.hidden_sizes,
        reward_ensemble=training.reward_ensemble,
        cost_ensemble=training.cost_ensemble,
        shared_body=training.shared_body,
    ).to(config.device)
    return {
        "actor": actor,
        "actor_optim": _adam(actor, training.actor_lr),
        "critic": critic,
        "critic_optim": _adam(critic, training.critic_lr),
        "action_space": spec.action_space,
        "cost_limit": config.cost_limit,
        "max_episode_steps": spec.max_episode_steps,
        "config": config.policy_config,
    }


def _onpolicy_arguments(config: ExperimentConfig, spec: TaskSpec) -> dict[str, Any]:
    """What every on-policy actor-critic is made of, with fresh networks and the critic's optimiser."""
    training = config.training
    actor = OnpolicyActor(
        spec.obs_dim,
        spec.act_dim,
        hidden_sizes=training.hidden_sizes,
        initial_std=training.initial_std,
    )
    critic = ValueCritic(
        spec.obs_dim,
        num_costs=len(config.cost_limit),
        hidden_sizes=training.critic_hidden_sizes or training.hidden_sizes,
        shared_body=training.shared_body,
    ).to(config.device)
    critic_optim: torch.optim.Optimizer = _adam(critic, training.critic_lr)
    if training.critic_optimiser == "lbfgs":
        critic_optim = torch.optim.LBFGS(critic.parameters(), max_iter=25, line_search_fn="strong_wolfe")
    return {
        "actor": actor.to(config.device),
        "critic": critic,
        "critic_optim": critic_optim,
        "action_space": spec.action_space,
        "cost_limit": config.cost_limit,
        "max_episode_steps": spec.max_episode_steps,
        "obs_dim": spec.obs_dim,
        "config": config.policy_config,
    }


def _with_actor_optim(config: ExperimentConfig, spec: TaskSpec) -> dict[str, Any]:
    arguments = _onpolicy_arguments(config, spec)
    return {**arguments, "actor_optim": _adam(arguments["actor"], config.training.actor_lr)}


def _adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with one kernel for all parameters, where the device has it."""
    return torch.optim.Adam(module.parameters(), lr=lr, fused=True)
