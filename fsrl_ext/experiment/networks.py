"""Networks, optimisers and policies from a config and a task's shapes."""

from __future__ import annotations

import torch

from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.net import EnsembleCritic, GaussianActor
from fsrl_ext.policy import CVPOPolicy


def build_cvpo(config: ExperimentConfig, spec: TaskSpec) -> CVPOPolicy:
    """A CVPO policy with fresh networks on the config's device."""
    training = config.training
    actor = GaussianActor(
        spec.obs_dim,
        spec.act_dim,
        hidden_sizes=training.hidden_sizes,
        covariance=training.covariance,
        initial_std=training.initial_std,
    ).to(config.device)
    critic = EnsembleCritic(
        spec.obs_dim,
        spec.act_dim,
        num_costs=len(config.cost_limit),
        hidden_sizes=training.hidden_sizes,
        reward_ensemble=training.reward_ensemble,
        cost_ensemble=training.cost_ensemble,
        shared_body=training.shared_body,
    ).to(config.device)
    policy = CVPOPolicy(
        actor=actor,
        actor_optim=_adam(actor, training.actor_lr),
        critic=critic,
        critic_optim=_adam(critic, training.critic_lr),
        action_space=spec.action_space,
        cost_limit=config.cost_limit,
        max_episode_steps=spec.max_episode_steps,
        config=config.policy_config,
    )
    return policy.to(config.device)


def _adam(module: torch.nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with one kernel for all parameters, where the device has it."""
    return torch.optim.Adam(module.parameters(), lr=lr, fused=True)
