"""The three conic programs of a constrained step in unit coordinates, through cvxpylayers.

Letters: ``k`` items, ``m`` constraints, ``n`` coordinates. With ``|z| <= 1``, the rows and the extra sets:

- ``"best"``: minimise ``objective . z`` where ``rows z + offsets <= 0``;
- ``"least"``: minimise the largest ``rows_i . z + offsets_i``, the slack problem;
- ``"shortest"``: minimise ``|z|`` where ``rows z + offsets <= 0``.

Programs are compiled once per kind, size and sets. cvxpy and cvxpylayers are imported when the first one is.
The solver is named (diffcp with SCS) and so is its tolerance: left alone, cvxpylayers takes ECOS where it is
installed, with an accuracy that is not enough for derivatives. What diffcp solves is unit-free, because it
takes every cotangent below 1e-8 for zero; cotangents are handed over with unit length. The solvers' warnings
of a missed tolerance are silenced: whoever asks checks the optimality conditions.

Source: Agrawal et al., "Differentiable Convex Optimization Layers", NeurIPS 2019 (arXiv 1910.12430).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    import cvxpy as cp

Kind = Literal["best", "least", "shortest"]
# Above this many coordinates the adjoint system is solved by an iterative method instead of a dense one.
_DENSE = 64
_ITERATIONS = 200_000


@dataclass(frozen=True)
class StepExpressions:
    """What extra convex sets are made of: cvxpy expressions, all affine and without units.

    :ivar coordinates: z ``[n]``, ``|z| <= 1``: the step in H-orthonormal directions, relative to the radius
        ``sqrt(2 delta)`` of the trust region. In reduced coordinates the first k span ``H^-1 a_1 .. a_k``
        and the last one is the part of ``H^-1 g`` that no constraint sees.
    :ivar objective_change: ``g . x / sqrt(2 delta g . H^-1 g)`` in [-1, 1].
    :ivar cost_changes: ``a_i . x / sqrt(2 delta a_i . H^-1 a_i)`` ``[m]`` in [-1, 1].
    """

    coordinates: cp.Expression
    objective_change: cp.Expression
    cost_changes: cp.Expression


ConvexSets = Callable[[StepExpressions], "list[cp.Constraint]"]


@dataclass(frozen=True)
class Plain:
    """Optimal value, z ``[n]``, and the multipliers of limits ``[m]`` and ball."""

    value: float
    z: Tensor
    limits: Tensor
    ball: float


class Program:
    """One compiled program; calling it solves it for k items, with gradient."""

    def __init__(self, kind: Kind, m: int, n: int, sets: ConvexSets | None) -> None:
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        z, t = cp.Variable(n), cp.Variable()
        self.rows, self.offsets = cp.Parameter((m, n)), cp.Parameter(m)
        self.objective = cp.Parameter(n)
        changes = self.rows @ z
        level = t if kind == "least" else cp.Constant(0.0)
        limits = changes + self.offsets <= level
        ball = cp.SOC(t if kind == "shortest" else cp.Constant(1.0), z)
        extra = [] if sets is None else sets(StepExpressions(z, self.objective @ z, changes))
        goal = self.objective @ z if kind == "best" else t
        self.problem = cp.Problem(cp.Minimize(goal), [limits, ball, *extra])
        self.z, self.limits, self.ball = z, limits, ball
        used = {p.id for p in self.problem.parameters()}
        wanted = (self.rows, self.offsets, self.objective)
        self.used = [p.id in used for p in wanted]
        with warnings.catch_warnings():
            # About the sparse tensors that cvxpylayers makes of a compiled program.
            warnings.filterwarnings("ignore", message="Sparse invariant checks")
            self.layer = CvxpyLayer(
                self.problem,
                parameters=[p for p in wanted if p.id in used],
                variables=[z, limits.dual_variables[0], ball.dual_variables[0]],
                solver=cp.DIFFCP,
            )
        self.mode = "dense" if n <= _DENSE else "lsqr"

    def __call__(
        self, rows: Tensor, offsets: Tensor, objective: Tensor, tolerance: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Solve, for items that are known to be feasible.

        :param rows: ``[k, m, n]``, ``offsets`` ``[k, m]``, ``objective`` ``[k, n]``, float64.
        :param tolerance: absolute and relative, of SCS.
        :return: z ``[k, n]`` with gradient; multipliers of the limits ``[k, m]`` and of the ball ``[k]``.
        :raises diffcp.SolverError: if the solver gives up.
        """
        settings = {"eps": tolerance, "solve_method": "SCS", "mode": self.mode, "max_iters": _ITERATIONS}
        parameters = (rows, offsets, objective)
        used = [p for p, is_used in zip(parameters, self.used, strict=True) if is_used]
        z, limits, ball = _Solve.apply(self.layer, settings, *used)
        return z, limits, ball

    def plain(self, rows: Tensor, offsets: Tensor, objective: Tensor) -> Plain | None:
        """Answer for one item without gradient, by Clarabel; ``None`` if no z meets every constraint.

        :raises ArithmeticError: if the solver does not say which.
        """
        import cvxpy as cp

        self.rows.value, self.offsets.value = rows.numpy(), offsets.numpy()
        self.objective.value = objective.numpy()
        tight = {f"tol_{name}": 1e-10 for name in ("gap_abs", "gap_rel", "feas")}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")
            self.problem.solve(solver=cp.CLARABEL, **tight)
        status = self.problem.status
        if status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            return None
        if status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            raise ArithmeticError(f"the slack problem ended as {status!r}")
        z, limits = (torch.as_tensor(x) for x in (self.z.value, self.limits.dual_value))
        ball = float(np.ravel(self.ball.dual_value[0])[0])
        return Plain(float(self.problem.value), z, limits, ball)


@lru_cache(maxsize=64)
def program(kind: Kind, m: int, n: int, sets: ConvexSets | None) -> Program:
    """The compiled program; ``m >= 1``."""
    return Program(kind, m, n, sets)


class _Solve(torch.autograd.Function):
    """The layer on items, with cotangents of unit length inside."""

    @staticmethod
    def forward(
        ctx: Any, layer: Any, settings: dict[str, Any], *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        leaves = [p.detach().clone().requires_grad_() for p in parameters]
        serial = {"n_jobs_forward": 1, "n_jobs_backward": 1}
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solved/Inaccurate")
            z, limits, ball = layer(*leaves, solver_args=settings | serial)
        ctx.inner = (z, leaves)
        answer = z.detach().clone(), limits.detach().clone(), ball.detach().reshape(len(z), -1)[:, 0].clone()
        ctx.mark_non_differentiable(*answer[1:])
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        z, leaves = ctx.inner
        size = y.norm(dim=1)
        unit = y / torch.where(size > 0.0, size, 1.0)[:, None]
        bars = torch.autograd.grad(z, leaves, unit, retain_graph=True)
        return None, None, *(bar * size.reshape(-1, *[1] * (bar.dim() - 1)) for bar in bars)
