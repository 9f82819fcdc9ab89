"""The constrained trust-region step of CPO and its derivative, in closed form or by a conic solver.

Read :mod:`problem` (the answer and its cases) and :mod:`step` (the public function) first. The closed form
is :mod:`coordinates` (the gradients in a basis of their own), :mod:`solver` (the problem in that basis),
:mod:`derivative` (its vector-Jacobian product) and :mod:`exact`, in this order. The folder :mod:`conic`
solves the same problem through cvxpylayers, with extra convex sets.
"""

from fsrl_ext.functional.constrained_step.conic import ExtraConstraints, StepExpressions
from fsrl_ext.functional.constrained_step.problem import Case, ConstrainedStep, Corner, StepVJP
from fsrl_ext.functional.constrained_step.step import Backend, constrained_step

__all__ = [
    "Backend",
    "Case",
    "ConstrainedStep",
    "Corner",
    "ExtraConstraints",
    "StepExpressions",
    "StepVJP",
    "constrained_step",
]
