"""Actors and critics."""

from fsrl_ext.net.actor import DeterministicActor, GaussianActor
from fsrl_ext.net.critic import EnsembleCritic, QValues, reduce_cost, reduce_reward
from fsrl_ext.net.onpolicy import ObservationNormaliser, OnpolicyActor, ValueCritic

__all__ = [
    "DeterministicActor",
    "EnsembleCritic",
    "GaussianActor",
    "ObservationNormaliser",
    "OnpolicyActor",
    "QValues",
    "ValueCritic",
    "reduce_cost",
    "reduce_reward",
]
