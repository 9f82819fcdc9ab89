"""The constrained trust-region step of CPO, in closed form, and its derivative.

Read :mod:`coordinates` (the gradients in a basis of their own), :mod:`solver` (the problem in that basis),
:mod:`derivative` (its vector-Jacobian product) and :mod:`step` (the public function), in this order.
"""

from fsrl_ext.functional.constrained_step.derivative import Corner, StepFunction, StepGradient
from fsrl_ext.functional.constrained_step.step import Case, ConstrainedStep, check_problem, constrained_step

__all__ = [
    "Case",
    "ConstrainedStep",
    "Corner",
    "StepFunction",
    "StepGradient",
    "check_problem",
    "constrained_step",
]
