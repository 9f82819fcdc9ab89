"""The three conic programs of a constrained step in unit coordinates, through cvxpylayers.

Letters: ``m`` constraints, ``n`` coordinates. With ``|z| <= 1``, the rows and the extra sets:

- ``"best"``: minimise ``objective . z`` where ``rows z + offsets <= 0``;
- ``"least"``: minimise the largest ``rows_i . z + offsets_i``, the slack problem;
- ``"shortest"``: minimise ``|z|`` where ``rows z + offsets <= 0``.

Programs are compiled once per kind, size and function of sets. cvxpy and cvxpylayers are imported when the
first program is compiled. The solver (diffcp with SCS) and its tolerance are set here: by default cvxpylayers
takes ECOS where that is installed, whose accuracy is not enough for derivatives. The solvers' warnings of a
missed tolerance are silenced, because every answer is checked against the optimality conditions afterwards.

Source: Agrawal et al., "Differentiable Convex Optimization Layers", NeurIPS 2019 (arXiv 1910.12430).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import cvxpy as cp

Kind = Literal["best", "least", "shortest"]

# Absolute and relative tolerance of SCS, for problems in units of 1. At 1e-11 a recovery runs into any limit
# of iterations and is no better.
SCS_TOLERANCE = 1e-10
_SCS_ITERATIONS = 20_000


@dataclass(frozen=True)
class StepExpressions:
    """The cvxpy expressions that extra convex sets are made of, all affine and without units.

    ``radius = sqrt(2 delta)`` is that of the trust region.

    :ivar coordinates: z ``[m + 1]``, ``|z| <= 1``: the step in H-orthonormal directions, relative to the
        radius. The first k directions span ``H^-1 a_1 .. H^-1 a_k``, the last one is the part of ``H^-1 g``
        that no constraint sees. The coordinate of a gradient that is zero, or a combination of those before
        it, has no effect.
    :ivar objective_change: ``g . x / (radius sqrt(g . H^-1 g))``, in [-1, 1].
    :ivar cost_changes: ``a_i . x / (radius sqrt(a_i . H^-1 a_i))`` ``[m]``, in [-1, 1].
    """

    coordinates: cp.Expression
    objective_change: cp.Expression
    cost_changes: cp.Expression


ExtraConstraints = Callable[[StepExpressions], "list[cp.Constraint]"]


@dataclass(frozen=True)
class Answer:
    """Optimal value, z ``[n]``, and the multipliers of the limits ``[m]`` and of the ball."""

    value: float
    z: Tensor
    limits: Tensor
    ball: float


class Program:
    """One compiled program of ``m >= 1`` rows and ``n`` coordinates."""

    def __init__(self, kind: Kind, m: int, n: int, extra_constraints: ExtraConstraints | None) -> None:
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        z, t = cp.Variable(n), cp.Variable()
        self.rows, self.offsets = cp.Parameter((m, n)), cp.Parameter(m)
        self.objective = cp.Parameter(n)
        changes = self.rows @ z
        limits = changes + self.offsets <= (t if kind == "least" else cp.Constant(0.0))
        ball = cp.SOC(t if kind == "shortest" else cp.Constant(1.0), z)
        extra = []
        if extra_constraints is not None:
            # A problem without constraints (n = 1) is posed with one row of zeros.
            extra = extra_constraints(StepExpressions(z, self.objective @ z, changes[: n - 1]))
            if not isinstance(extra, Sequence) or not all(isinstance(x, cp.Constraint) for x in extra):
                raise TypeError(f"extra_constraints must return a list of cvxpy constraints, got {extra!r}")
            if broken := [str(x) for x in extra if not x.is_dcp(dpp=True)]:
                raise ValueError(
                    "extra_constraints must be convex and follow cvxpy's rules for parameters (DPP), "
                    f"got {broken}"
                )
        goal = self.objective @ z if kind == "best" else t
        self.problem = cp.Problem(cp.Minimize(goal), [limits, ball, *extra])
        self.z, self.limits, self.ball = z, limits, ball
        used = {p.id for p in self.problem.parameters()}
        parameters = (self.rows, self.offsets, self.objective)
        self.used = [p.id in used for p in parameters]
        with warnings.catch_warnings():
            # The warning is about the sparse tensors that cvxpylayers makes of a compiled program.
            warnings.filterwarnings("ignore", message="Sparse invariant checks")
            self.layer = CvxpyLayer(
                self.problem,
                parameters=[p for p in parameters if p.id in used],
                variables=[z, limits.dual_variables[0], ball.dual_variables[0]],
                solver=cp.DIFFCP,
            )

    def solve(self, rows: Tensor, offsets: Tensor, objective: Tensor) -> tuple[Tensor, Tensor, float]:
        """Solve a problem that is known to be feasible, by diffcp with SCS.

        diffcp takes every cotangent below 1e-8 for zero: hand over cotangents of z of about unit length.

        :param rows: ``[m, n]``, ``offsets`` ``[m]``, ``objective`` ``[n]``, float64.
        :return: z ``[n]`` with gradient; multipliers of the limits ``[m]`` and of the ball, without.
        :raises ArithmeticError: if the solver gives up.
        """
        import diffcp

        settings = {
            "eps": SCS_TOLERANCE,
            "max_iters": _SCS_ITERATIONS,
            "solve_method": "SCS",
            "mode": "dense",
            "n_jobs_forward": 1,
            "n_jobs_backward": 1,
        }
        used = [p for p, is_used in zip((rows, offsets, objective), self.used, strict=True) if is_used]
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solved/Inaccurate")
            try:
                z, limits, ball = self.layer(*used, solver_args=settings)
            except diffcp.SolverError as error:
                raise ArithmeticError(f"the conic solver failed: {error}") from error
        return z, limits.detach(), float(ball.detach().reshape(-1)[0])

    def plain(self, rows: Tensor, offsets: Tensor, objective: Tensor) -> Answer | None:
        """Solve without gradient, by Clarabel; ``None`` if no z meets every constraint.

        :raises ArithmeticError: if the solver gives up.
        """
        import cvxpy as cp

        self.rows.value, self.offsets.value = rows.detach().numpy(), offsets.detach().numpy()
        self.objective.value = objective.detach().numpy()
        tight = {f"tol_{name}": 1e-10 for name in ("gap_abs", "gap_rel", "feas")}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")
            try:
                self.problem.solve(solver=cp.CLARABEL, **tight)
            except cp.SolverError as error:
                raise ArithmeticError(f"the conic solver failed: {error}") from error
        status = self.problem.status
        if status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            return None
        if status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            raise ArithmeticError(f"the conic solver ended as {status!r}")
        z, limits = (torch.as_tensor(x) for x in (self.z.value, self.limits.dual_value))
        ball = float(np.ravel(self.ball.dual_value[0])[0])
        return Answer(float(self.problem.value), z, limits, ball)


@lru_cache(maxsize=64)
def program(kind: Kind, m: int, n: int, extra_constraints: ExtraConstraints | None) -> Program:
    """Return the compiled program for this kind, size and function of sets."""
    return Program(kind, m, n, extra_constraints)
