"""The actors of tasks with one agent and with several, and those of discrete actions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from fsrl_ext.experiment.algorithms.images import image_features
from fsrl_ext.experiment.network_path import make_network
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training_config import TrainingConfig
from fsrl_ext.net import (
    AgentActors,
    CategoricalActor,
    FeatureActor,
    Features,
    GRUFeatures,
    RecurrentActor,
)
from fsrl_ext.net.discrete import Activation


def build_actor(
    make_actor: Callable[..., nn.Module], spec: TaskSpec, training: TrainingConfig, **settings: Any
) -> nn.Module:
    """An actor of the task's shapes; with several agents, actors that see their own observations alone.

    With images, the actor sees their features. A recurrent actor sees the features of a GRU.

    :param make_actor: the actor's class, called with the lengths of observations and actions.
    :param training: says whether several agents share one actor, whether the actor is recurrent, and whether
        it sees observations or the features that a network of the user's computes.
    :param settings: further arguments of the class.
    """
    make = functools.partial(make_actor, **settings)
    if spec.image_shape is not None:
        features = image_features(spec.image_shape, "actor", training.actor)
        return FeatureActor(features, make(features.width, spec.act_dim))
    if training.network == "gru":
        recurrent: Any = training
        memory = GRUFeatures(spec.obs_dim, recurrent.gru_size)
        actor = make(memory.width, spec.act_dim)
        return RecurrentActor(memory, actor, bptt_steps=recurrent.bptt_steps)
    if training.actor is not None:
        make = functools.partial(_on_features, training.actor, functools.partial(make, hidden_sizes=()))
    if spec.team is None:
        return make(spec.obs_dim, spec.act_dim)
    return AgentActors(spec.team.obs_dims, spec.team.act_dims, make, shared=training.agents == "shared")


def _on_features(path: str, make_actor: Callable[..., nn.Module], obs_dim: int, act_dim: int) -> nn.Module:
    """An actor without hidden layers on the features of a network of the user's."""
    features = Features(make_network("actor", path, obs_dim), obs_dim, name="actor")
    return FeatureActor(features, make_actor(features.width, act_dim))


def build_discrete_actor(spec: TaskSpec, training: TrainingConfig, activation: Activation) -> nn.Module:
    """An actor for a task with discrete actions.

    :param activation: of the hidden layers.
    """
    return build_actor(
        CategoricalActor, spec, training, hidden_sizes=training.hidden_sizes, activation=activation
    )
