"""The critics of off-policy and on-policy algorithms, with networks of the user's own or without."""

from __future__ import annotations

from typing import Any

from torch import nn

from fsrl_ext.experiment.network_path import maker
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.net import EnsembleCritic, FeatureCritic, FeatureValueCritic, ValueCritic


def build_q_critic(spec: TaskSpec, training: Any, *, num_costs: int) -> nn.Module:
    """A critic of states and actions, for reward and costs.

    :param training: has the sizes of the ensembles.
    """
    ensembles = {"reward_ensemble": training.reward_ensemble, "cost_ensemble": training.cost_ensemble}
    if training.critic is not None:
        make_network = maker("critic", training.critic)
        return FeatureCritic(spec.obs_dim, spec.act_dim, make_network, num_costs=num_costs, **ensembles)
    return EnsembleCritic(
        spec.obs_dim,
        spec.act_dim,
        num_costs=num_costs,
        hidden_sizes=training.critic_hidden_sizes or training.hidden_sizes,
        shared_body=training.shared_body,
        **ensembles,
    )


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
