"""CVPO's E-step: the reward-optimal reweighting of actions inside a KL ball and the cost limits.

Read :mod:`dual` (the problem, its dual and its answer), :mod:`problem` (the data in units of its own),
:mod:`newton` (the fast way), :mod:`fallback` (the way that cannot fail) and :mod:`solve` (the public
function), in this order; :mod:`slsqp` is SciPy's answer to the same problem.
"""

from fsrl_ext.functional.estep.dual import (
    EStepSolution,
    Status,
    boltzmann_weights,
    dual_gradient,
    dual_value,
    kkt_residual,
    kl_to_prior,
    kl_to_uniform,
    largest_reduction,
)
from fsrl_ext.functional.estep.slsqp import solve_dual_slsqp
from fsrl_ext.functional.estep.solve import solve_dual

__all__ = [
    "EStepSolution",
    "Status",
    "boltzmann_weights",
    "dual_gradient",
    "dual_value",
    "kkt_residual",
    "kl_to_prior",
    "kl_to_uniform",
    "largest_reduction",
    "solve_dual",
    "solve_dual_slsqp",
]
