"""Actors and critics."""

from fsrl_ext.net.actor import DeterministicActor, GaussianActor
from fsrl_ext.net.critic import EnsembleCritic, QValues, reduce_cost, reduce_reward

__all__ = [
    "DeterministicActor",
    "EnsembleCritic",
    "GaussianActor",
    "QValues",
    "reduce_cost",
    "reduce_reward",
]
