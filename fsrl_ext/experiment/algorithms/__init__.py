"""The built-in algorithms: for each family its training classes, networks and rows of the registry."""

from fsrl_ext.experiment.algorithms import meta, offpolicy, onpolicy
from fsrl_ext.experiment.algorithms.meta import MetaTraining
from fsrl_ext.experiment.algorithms.offpolicy import (
    CVPOTraining,
    OffpolicyTraining,
    SACTraining,
    cvpo_networks,
    deterministic_networks,
    sac_networks,
)
from fsrl_ext.experiment.algorithms.onpolicy import (
    OnpolicyTraining,
    PPOTraining,
    ValueCriticTraining,
    onpolicy_networks,
    ppo_networks,
)
from fsrl_ext.experiment.registry import register_algorithm

__all__ = [
    "CVPOTraining",
    "MetaTraining",
    "OffpolicyTraining",
    "OnpolicyTraining",
    "PPOTraining",
    "SACTraining",
    "ValueCriticTraining",
    "cvpo_networks",
    "deterministic_networks",
    "onpolicy_networks",
    "ppo_networks",
    "sac_networks",
]

# The order is that of ``fsrl-ext list``.
for _rows in (offpolicy.ALGORITHMS, onpolicy.ALGORITHMS, meta.ALGORITHMS):
    for _name, _row in _rows.items():
        register_algorithm(_name, _row)
