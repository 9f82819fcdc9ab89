"""The critics of off-policy and on-policy algorithms, with networks of the user's own or without."""

from __future__ import annotations

from typing import Any

from torch import nn

from fsrl_ext.experiment.algorithms.images import image_features
from fsrl_ext.experiment.network_path import maker
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.net import (
    DiscreteCritic,
    EnsembleCritic,
    FeatureCritic,
    FeatureValueCritic,
    GRUFeatures,
    RecurrentValueCritic,
    SharedFeatureCritic,
    ValueCritic,
)


def build_q_critic(spec: TaskSpec, training: Any, *, num_costs: int) -> nn.Module:
    """A critic of states and actions, for reward and costs.

    For discrete actions it has a value for each action. With images, all its networks see the same features.

    :param training: has the sizes of the ensembles.
    :raises ValueError: a critic of the user's for discrete actions.
    """
    ensembles: dict[str, Any] = {
        "reward_ensemble": training.reward_ensemble,
        "cost_ensemble": training.cost_ensemble,
    }
    sizes: dict[str, Any] = {
        "hidden_sizes": training.critic_hidden_sizes or training.hidden_sizes,
        "shared_body": training.shared_body,
    }
    if spec.image_shape is not None:
        features = image_features(spec.image_shape, "critic", training.critic)
        critic = _q_critic(features.width, spec, num_costs=num_costs, **ensembles, **sizes)
        return SharedFeatureCritic(features, critic)
    if training.critic is not None:
        if spec.num_actions is not None:
            raise ValueError(f"critic must be None with discrete actions, got {training.critic!r}")
        make_network = maker("critic", training.critic)
        return FeatureCritic(spec.obs_dim, spec.act_dim, make_network, num_costs=num_costs, **ensembles)
    return _q_critic(spec.obs_dim, spec, num_costs=num_costs, **ensembles, **sizes)


def _q_critic(in_dim: int, spec: TaskSpec, **settings: Any) -> nn.Module:
    """A critic of ``in_dim`` observations or features, and of the task's actions."""
    if spec.num_actions is not None:
        return DiscreteCritic(in_dim, spec.num_actions, **settings)
    return EnsembleCritic(in_dim, spec.act_dim, **settings)


def build_value_critic(spec: TaskSpec, training: Any, *, num_costs: int) -> nn.Module:
    """A critic of states, for reward and costs.

    With images, all its networks see the same features; those of a recurrent critic see the same GRU.
    """
    sizes: dict[str, Any] = {
        "hidden_sizes": training.critic_hidden_sizes or training.hidden_sizes,
        "shared_body": training.shared_body,
    }
    if spec.image_shape is not None:
        features = image_features(spec.image_shape, "critic", training.critic)
        return SharedFeatureCritic(features, ValueCritic(features.width, num_costs=num_costs, **sizes))
    if training.network == "gru":
        memory = GRUFeatures(spec.obs_dim, training.gru_size)
        return RecurrentValueCritic(memory, ValueCritic(memory.width, num_costs=num_costs, **sizes))
    if training.critic is not None:
        return FeatureValueCritic(spec.obs_dim, maker("critic", training.critic), num_costs=num_costs)
    return ValueCritic(spec.obs_dim, num_costs=num_costs, **sizes)
