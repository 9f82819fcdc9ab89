"""The critics of off-policy and on-policy algorithms, with networks of the user's own or without."""

from __future__ import annotations

from typing import Any

from torch import nn

from fsrl_ext.experiment.network_path import maker
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.net import DiscreteCritic, EnsembleCritic, FeatureCritic, FeatureValueCritic, ValueCritic


def build_q_critic(spec: TaskSpec, training: Any, *, num_costs: int) -> nn.Module:
    """A critic of states and actions, for reward and costs.

    For discrete actions it has a value for each action.

    :param training: has the sizes of the ensembles.
    :raises ValueError: a critic of the user's for discrete actions.
    """
    ensembles = {"reward_ensemble": training.reward_ensemble, "cost_ensemble": training.cost_ensemble}
    sizes = {
        "hidden_sizes": training.critic_hidden_sizes or training.hidden_sizes,
        "shared_body": training.shared_body,
    }
    if spec.num_actions is not None:
        if training.critic is not None:
            raise ValueError(f"critic must be None with discrete actions, got {training.critic!r}")
        return DiscreteCritic(spec.obs_dim, spec.num_actions, num_costs=num_costs, **ensembles, **sizes)
    if training.critic is not None:
        make_network = maker("critic", training.critic)
        return FeatureCritic(spec.obs_dim, spec.act_dim, make_network, num_costs=num_costs, **ensembles)
    return EnsembleCritic(spec.obs_dim, spec.act_dim, num_costs=num_costs, **ensembles, **sizes)


def build_value_critic(spec: TaskSpec, training: Any, *, num_costs: int) -> nn.Module:
    """A critic of states, for reward and costs."""
    if training.critic is not None:
        return FeatureValueCritic(spec.obs_dim, maker("critic", training.critic), num_costs=num_costs)
    return ValueCritic(
        spec.obs_dim,
        num_costs=num_costs,
        hidden_sizes=training.critic_hidden_sizes or training.hidden_sizes,
        shared_body=training.shared_body,
    )
