"""The constrained step through a conic solver and cvxpylayers, with extra convex sets.

Read :mod:`coordinates` (the problem in the unit ball), :mod:`program` (the conic programs), :mod:`solve`
(which program a problem needs) and :mod:`step` (the answer and its derivative), in this order.
"""

from fsrl_ext.functional.constrained_step.conic.program import ExtraConstraints, StepExpressions
from fsrl_ext.functional.constrained_step.conic.step import conic_step

__all__ = ["ExtraConstraints", "StepExpressions", "conic_step"]
