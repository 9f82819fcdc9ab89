"""Actors, critics and the observation normaliser: the networks that policies are given.

- `actor`: the actors of the off-policy algorithms, Gaussian and deterministic;
- `agents`: actors of several agents, shared or one for each;
- `critic`: Q-functions of the reward and of each cost;
- `features`: actors and critics on the features of a network of the user's;
- `images`: features of images, and a small convolutional network;
- `discrete`: the actor and the Q-functions of discrete actions;
- `values`: their values, and how an ensemble is reduced to one estimate;
- `mlp`: products and gradients of small networks on a processor;
- `tanh`: values and gradients of small tanh networks on a processor;
- `onpolicy`: the Gaussian actor and the state values of the on-policy algorithms;
- `recurrent`: actors and critics that remember the episode by a GRU, for the on-policy algorithms;
- `normaliser`: running mean and variance of observations, for the on-policy algorithms.
"""

from fsrl_ext.net.actor import DeterministicActor, GaussianActor
from fsrl_ext.net.agents import AgentActors
from fsrl_ext.net.critic import EnsembleCritic
from fsrl_ext.net.discrete import CategoricalActor, DiscreteCritic
from fsrl_ext.net.features import (
    FeatureActor,
    FeatureCritic,
    Features,
    FeatureValueCritic,
    SharedFeatureCritic,
)
from fsrl_ext.net.images import ConvNet, ImageFeatures
from fsrl_ext.net.normaliser import ObservationNormaliser
from fsrl_ext.net.onpolicy import OnpolicyActor, ValueCritic
from fsrl_ext.net.recurrent import GRUFeatures, RecurrentActor, RecurrentValueCritic, Windows
from fsrl_ext.net.values import QValues, reduce_cost, reduce_reward

__all__ = [
    "AgentActors",
    "CategoricalActor",
    "ConvNet",
    "DeterministicActor",
    "DiscreteCritic",
    "EnsembleCritic",
    "FeatureActor",
    "FeatureCritic",
    "FeatureValueCritic",
    "Features",
    "GRUFeatures",
    "GaussianActor",
    "ImageFeatures",
    "ObservationNormaliser",
    "OnpolicyActor",
    "QValues",
    "RecurrentActor",
    "RecurrentValueCritic",
    "SharedFeatureCritic",
    "ValueCritic",
    "Windows",
    "reduce_cost",
    "reduce_reward",
]
