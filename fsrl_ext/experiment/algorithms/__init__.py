"""The built-in algorithms: for each family its training class, its networks and its rows of the registry."""

from fsrl_ext.experiment.algorithms import meta, offpolicy, onpolicy
from fsrl_ext.experiment.registry import register_algorithm

# The order is that of ``fsrl-ext list``.
for _rows in (offpolicy.ALGORITHMS, onpolicy.ALGORITHMS, meta.ALGORITHMS):
    for _name, _row in _rows.items():
        register_algorithm(_name, _row)
