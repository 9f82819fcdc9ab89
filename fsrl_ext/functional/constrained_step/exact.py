"""The constrained step in closed form, exact for one or several constraints: the backend ``"exact"``.

With ``u = H^-1 g``, ``v = H^-1 a``, ``q = g.u``, ``r = g.v``, ``s = a.v`` one constraint has the solution

- recovery (``b > 0`` and ``b^2 >= 2 delta s``): ``x = -sqrt(2 delta / s) v``;
- inactive (``b - r sqrt(2 delta / q) <= 0``): ``x = -sqrt(2 delta / q) u``;
- active: ``x = -(b/s) v - sqrt(B/A) w``, ``w = u - (r/s) v``, ``A = q - r^2/s``, ``B = 2 delta - b^2/s``.

Any solution is a combination of ``u`` and the ``v_i``. In H-orthonormal coordinates of their span the
problem has at most ``m + 1`` variables and a ball for a trust region; it is solved there in float64 by the
same formulas, one set of binding constraints at a time. The coordinates come from Gram-Schmidt on the
gradients themselves, so nearly parallel gradients do not lose half of their digits in ``A``.

Source: Achiam et al., "Constrained Policy Optimization", ICML 2017 (arXiv 1705.10528), section 6.1 and
appendix 10.2; several constraints and the degenerate cases are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.functional.constrained_step.coordinates import Basis, reduce
from fsrl_ext.functional.constrained_step.derivative import Solution, StepGradient
from fsrl_ext.functional.constrained_step.problem import Case, ConstrainedStep
from fsrl_ext.functional.constrained_step.solver import (
    Array,
    Point,
    best_feasible,
    least_violation,
    shortest_feasible,
)


def exact_step(
    g: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    kl_bound: float,
    inverse_metric: Callable[[Tensor], Tensor] | None,
    corner_tolerance: float,
) -> ConstrainedStep:
    """Solve a problem that was checked; arguments and errors as in ``constrained_step``.

    :raises ArithmeticError: if rounding leaves no acceptable answer; not known to happen.
    """
    basis = reduce(g.detach(), a.detach(), inverse_metric)
    radius = math.sqrt(2.0 * kl_bound)
    surplus = b.detach().double().cpu().numpy()
    case, solution = _solve(basis, surplus, radius)
    step = (torch.as_tensor(solution.x, device=g.device) @ basis.directions).to(g.dtype)
    gradient = StepGradient(basis, surplus, solution, inverse_metric, corner_tolerance)
    coordinates = np.concatenate([basis.constraints, basis.objective[None]])
    return ConstrainedStep(
        step=step,
        case=case,
        multiplier_kl=solution.multiplier_kl,
        multipliers=torch.as_tensor(solution.multipliers, device=g.device),
        predicted_objective=float(basis.objective @ solution.x),
        predicted_constraint=torch.as_tensor(surplus + basis.constraints @ solution.x, device=g.device),
        predicted_kl=float(0.5 * solution.x @ solution.x),
        gram=torch.as_tensor(coordinates @ coordinates.T),
        corner=gradient.corner(),
        vjp=gradient,
    )


def _solve(basis: Basis, surplus: Array, radius: float) -> tuple[Case, Solution]:
    """Solve the problem in H-orthonormal coordinates, scaled to unit rows and a unit ball."""
    size = np.linalg.norm(basis.constraints, axis=1)
    slope = float(np.linalg.norm(basis.objective))
    blocked = bool(np.any((size == 0.0) & (surplus > 0.0)))
    # A constraint that is met all over the ball never binds.
    kept = np.flatnonzero((size > 0.0) & (surplus > -size * radius))
    size = size[kept]
    rows, offsets = basis.constraints[kept] / size[:, None], surplus[kept] / (size * radius)

    def unscaled(point: Point, unit: Array, ball: float, least_violation: bool = False) -> Solution:
        binding = list(point.binding)
        multipliers = np.zeros(len(surplus))
        multipliers[kept[binding]] = np.maximum(point.multipliers, 0.0) * unit[binding]
        return Solution(
            x=point.x * (radius / max(1.0, float(np.linalg.norm(point.x)))),
            multiplier_kl=ball,
            multipliers=multipliers,
            binding=tuple(kept[binding].tolist()),
            least_violation=least_violation,
        )

    shortest = shortest_feasible(rows, offsets)
    if shortest is not None:
        if blocked or slope == 0.0:
            return "degenerate", unscaled(shortest, np.zeros(len(size)), 0.0)
        best = best_feasible(basis.objective / slope, rows, offsets)
        if best is not None:
            tight: Case = "active" if best.binding else "inactive"
            solution = unscaled(best, slope / size, slope * best.ball / radius)
            return tight if best.ball > 0.0 else "degenerate", solution
    least = least_violation(rows, offsets)
    if least is None:
        raise ArithmeticError("rounding leaves no step of least violation")
    total = float((least.multipliers / size[list(least.binding)]).sum())
    solution = unscaled(least, 1.0 / (size * total), least.ball / (radius * total), least_violation=True)
    return "degenerate" if blocked else "recovery", solution
