"""The constrained step as programs in all P parameters: a reference that shares nothing with the library.

Letters: ``P`` parameters, ``m`` constraints. With ``H = R R^T`` the programs are solved for
``y = R^T x / sqrt(2 delta)`` in the unit ball: cvxpylayers (diffcp with SCS) gives the step and its gradient,
Clarabel the case and the multipliers. Blocked constraints and flat objectives are not covered.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cvxpy as cp
import torch
from cvxpylayers.torch import CvxpyLayer
from torch import Tensor

TIGHT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
SCS = {"eps": 1e-10, "max_iters": 20_000, "solve_method": "SCS", "mode": "dense"}


class FullStep(NamedTuple):
    """``step`` ``[P]`` carries gradient in g, a and b; the multipliers are those of ``ConstrainedStep``."""

    step: Tensor
    case: str
    multiplier_kl: float
    multipliers: Tensor


class Program:
    """Least violation of the constraints in the unit ball, or the best objective under all of them."""

    def __init__(self, recovery: bool, m: int, size: int) -> None:
        y, level = cp.Variable(size), cp.Variable()
        self.parameters = [cp.Parameter((m, size)), cp.Parameter(m), cp.Parameter(size)]
        rows, offsets, objective = self.parameters
        self.limits = rows @ y + offsets <= (level if recovery else 0.0)
        self.ball = cp.norm(y) <= 1.0
        goal = level if recovery else objective @ y
        self.problem = cp.Problem(cp.Minimize(goal), [self.limits, self.ball])
        used = self.parameters[: 2 if recovery else 3]
        self.layer = CvxpyLayer(self.problem, parameters=used, variables=[y], solver=cp.DIFFCP)
        self.used = len(used)

    def value(self, *values: Tensor) -> float:
        """Optimal value by Clarabel, which leaves the multipliers with the constraints."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.value = value.detach().numpy()
        return float(self.problem.solve(solver=cp.CLARABEL, **TIGHT))

    def __call__(self, *values: Tensor) -> Tensor:
        return self.layer(*values[: self.used], solver_args=SCS)[0]


@lru_cache
def program(recovery: bool, m: int, size: int) -> Program:
    return Program(recovery, m, size)


def full_step(
    g: Tensor, a: Tensor, b: Tensor, *, kl_bound: float, metric_root: Tensor | None = None
) -> FullStep:
    """Solve for all P parameters in float64; ``metric_root`` is R ``[P, P]``, lower triangular."""
    g, a, b = g.double(), a.double(), b.double()
    root = torch.eye(len(g), dtype=torch.float64) if metric_root is None else metric_root
    radius = math.sqrt(2.0 * kl_bound)
    white = torch.linalg.solve_triangular(root, torch.cat([a, g[None]]).T, upper=False).T
    size = white.norm(dim=1)
    unit, offsets = white / size[:, None], b / (radius * size[:-1])
    values = unit[:-1], offsets, unit[-1]
    recovery = program(True, *a.shape).value(*values) > 0.0
    solver = program(recovery, *a.shape)
    solver.value(*values)
    limits, ball = torch.as_tensor(solver.limits.dual_value), float(solver.ball.dual_value)
    x = torch.linalg.solve_triangular(root.T, radius * solver(*values)[:, None], upper=True).squeeze(1)
    size = size.detach()
    multipliers = limits / size[:-1]
    if recovery:
        total = float(multipliers.sum())
        return FullStep(x, "recovery", ball / (radius * total), multipliers / total)
    case = "active" if bool((limits > 1e-6).any()) else "inactive"
    slope = float(size[-1])
    return FullStep(x, case, ball * slope / radius, multipliers * slope)
