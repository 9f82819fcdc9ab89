"""The constrained step through a conic solver and cvxpylayers, for convex sets of one's own.

Read :mod:`coordinates` (the problem in the unit ball), :mod:`program` (the conic programs), :mod:`items`
(which program an item needs) and :mod:`layer` (the public functions), in this order.
"""

from fsrl_ext.functional.constrained_step.conic.layer import (
    ConvexSets,
    StepExpressions,
    convex_step,
    convex_steps,
    full_convex_step,
)

__all__ = ["ConvexSets", "StepExpressions", "convex_step", "convex_steps", "full_convex_step"]
