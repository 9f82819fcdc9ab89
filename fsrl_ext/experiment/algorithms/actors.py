"""The actors of tasks with one agent and with several, and those of discrete actions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training_config import TrainingConfig
from fsrl_ext.net import AgentActors, CategoricalActor
from fsrl_ext.net.discrete import Activation


def build_actor(
    make_actor: Callable[..., nn.Module], spec: TaskSpec, training: TrainingConfig, **settings: Any
) -> nn.Module:
    """An actor of the task's shapes; with several agents, actors that see their own observations alone.

    :param make_actor: the actor's class, called with the lengths of observations and actions.
    :param training: says whether several agents share one actor.
    :param settings: further arguments of the class.
    """
    make = functools.partial(make_actor, **settings)
    if spec.team is None:
        return make(spec.obs_dim, spec.act_dim)
    return AgentActors(spec.team.obs_dims, spec.team.act_dims, make, shared=training.agents == "shared")


def build_discrete_actor(spec: TaskSpec, training: TrainingConfig, activation: Activation) -> nn.Module:
    """An actor for a task with discrete actions.

    :param activation: of the hidden layers.
    """
    return CategoricalActor(
        spec.obs_dim, spec.act_dim, hidden_sizes=training.hidden_sizes, activation=activation
    )
