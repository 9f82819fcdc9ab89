"""CVPO's E-step: the reward-optimal reweighting of actions inside a KL ball and the cost limits.

Read :mod:`dual` (the equations), :mod:`problem` and :mod:`scaling` (the data in units of its own),
:mod:`newton`, :mod:`box` and :mod:`solver` (the method) and :mod:`solve` (the public function), in this
order; :mod:`slsqp` is SciPy's answer to the same problem.
"""

from fsrl_ext.functional.estep.dual import (
    boltzmann_weights,
    dual_gradient,
    dual_hessian,
    dual_value,
    kl_to_uniform,
    lagrangian,
)
from fsrl_ext.functional.estep.slsqp import solve_dual_slsqp
from fsrl_ext.functional.estep.solve import EStepSolution, Status, kkt_residual, solve_dual

__all__ = [
    "EStepSolution",
    "Status",
    "boltzmann_weights",
    "dual_gradient",
    "dual_hessian",
    "dual_value",
    "kkt_residual",
    "kl_to_uniform",
    "lagrangian",
    "solve_dual",
    "solve_dual_slsqp",
]
