"""Networks, optimisers and policies from a config and a task's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fsrl_ext.net import DeterministicActor, EnsembleCritic, GaussianActor
from fsrl_ext.policy import CVPOPolicy, DDPGLagPolicy, SACLagPolicy, TD3LagPolicy

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
        hidden_sizes=training.hidden_sizes,
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


def _adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with one kernel for all parameters, where the device has it."""
    return torch.optim.Adam(module.parameters(), lr=lr, fused=True)
