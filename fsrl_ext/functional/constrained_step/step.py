"""The constrained trust-region step of CPO, exact for one or several constraints.

Letters: ``P`` parameters, ``m`` constraints. Over steps ``x [P]``::

    minimise    g . x
    subject to  b_i + a_i . x <= 0    (every constraint i)
                x^T H x / 2 <= delta

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
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.constrained_step.coordinates import Basis, reduce
from fsrl_ext.functional.constrained_step.derivative import Corner, Solution, StepFunction, StepGradient
from fsrl_ext.functional.constrained_step.solver import (
    Array,
    Point,
    best_feasible,
    least_violation,
    shortest_feasible,
)

__all__ = ["Case", "ConstrainedStep", "Corner", "StepVJP", "constrained_step"]

Case = Literal["inactive", "active", "recovery", "degenerate"]
# y [P] -> (g_bar [P], a_bar [m, P], b_bar [m])
StepVJP = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ConstrainedStep:
    """Answer of :func:`constrained_step`.

    ``case`` is the first of these that is true:

    - ``"degenerate"``, blocked: some constraint has a zero gradient and ``b > 0``, so no step meets it.
      The step is the shortest one that meets the others (zero if they are met, or if there are none),
      without regard to the objective; if that does not fit into the trust region, the step of a recovery
      for the others.
    - ``"recovery"``: no step inside the trust region meets every constraint (or only one on its edge
      does). The step has the least ``max_i (b_i + a_i . x) / sqrt(s_i)`` with ``s_i = a_i . H^-1 a_i``.
    - ``"degenerate"``, flat: the objective does not use the trust region up. Either ``g = 0``, or g
      lies in the span of the binding constraints' gradients (g parallel to a). The step is the shortest
      optimal one: ``-(b/s) v`` for one binding constraint, zero if ``g = 0`` and all ``b <= 0``.
    - ``"active"``: some constraint binds and changes the step; the trust region binds too.
    - ``"inactive"``: the step ``-sqrt(2 delta / q) u`` of TRPO meets every constraint.

    :ivar step: x ``[P]``, dtype and device of ``g``.
    :ivar case: see above.
    :ivar multiplier_kl: lambda; 0 in a flat case, and where constraints contradict each other inside the
        trust region.
    :ivar multipliers: nu ``[m]``, float64, nonnegative: ``g + lambda H x + sum_i nu_i a_i = 0``. For a
        step of least violation they are those of its own problem, without g and with ``sum_i nu_i = 1``:
        ``lambda H x + sum_i nu_i a_i = 0``. All zero for ``g = 0``, and if blocked while the others are met.
    :ivar predicted_objective: ``g . x``; the expected improvement is its negative.
    :ivar predicted_constraint: ``b_i + a_i . x`` ``[m]``, float64; at most rounding above zero, save in a
        recovery and for blocked constraints.
    :ivar predicted_kl: ``x^T H x / 2`` as far as ``inverse_metric`` tells; at most ``kl_bound``.
    :ivar gram: inner products in the metric ``H^-1`` of ``a_1 .. a_m, g``, ``[m + 1, m + 1]``, float64:
        s on the diagonal and q in its last place, r in the last row and column; ``None`` from a solver that
        does not form it.
    :ivar corner: where the derivative does not exist, or is so large that it says nothing: its singular part
        is left out then. ``"edge"``: the constraints leave next to nothing of the trust region;
        ``"flat"``: they leave next to nothing of the objective; ``"contradiction"``: a recovery between
        constraints that pull against each other. ``None`` elsewhere.
    :ivar vjp: ``y [P] -> (g_bar [P], a_bar [m, P], b_bar [m])``, float64: the cotangents of g, a and b for
        the cotangent y of the step. As good as ``step.backward(y)``, any number of times, and without a
        graph; it keeps ``2 (m + 1)`` vectors ``[P]`` and ``inverse_metric`` alive.
    """

    step: Tensor
    case: Case
    multiplier_kl: float
    multipliers: Tensor
    predicted_objective: float
    predicted_constraint: Tensor
    predicted_kl: float
    corner: Corner | None
    vjp: StepVJP = field(repr=False, compare=False)
    gram: Tensor | None = None


def constrained_step(
    g: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    kl_bound: float,
    inverse_metric: Callable[[Tensor], Tensor] | None = None,
    corner_tolerance: float = 1e-4,
) -> ConstrainedStep:
    """Solve the constrained trust-region problem exactly, and say how it ended.

    The step is differentiable, once, in ``g``, ``a`` and ``b``, with H as a constant; a backward pass takes
    one product with ``H^-1``. In and near a corner its singular part is left out and ``corner`` says so:
    there is none for ``g`` in a flat case, and none at all where constraints contradict each other inside
    the trust region.

    ``a`` and ``b`` must share a unit: the gradient of the mean over *steps* of ratio times cost advantage
    goes with ``b = (J_c - limit) / T`` for an undiscounted episode cost of T steps.

    :param g: ``[P]`` gradient of the *negative* reward surrogate.
    :param a: ``[m, P]`` gradients of the cost surrogates; ``m = 0`` is the step of TRPO.
    :param b: ``[m]`` by how much each constraint is exceeded; ``-inf`` turns one off.
    :param kl_bound: delta, in nats.
    :param inverse_metric: ``z [P] -> H^-1 z [P]``, symmetric positive definite, called at most ``m + 1``
        times; ``None`` is the identity. An approximate one (conjugate gradient) leaves the predicted
        objective and constraints exact and makes the KL bound approximate.
    :param corner_tolerance: in [0, 1): sine of the angle, in the metric, from which on two directions count
        as parallel in the derivative. What is left grows like its inverse. The step does not depend on it.
    :raises ValueError: for shapes, a bound or a tolerance that are not allowed, and for a metric that is
        found not to be positive definite.
    :raises NonFiniteError: for NaN or infinite entries (save ``b = -inf``), and if the metric gives some.
    :raises ArithmeticError: if rounding leaves no acceptable answer; not known to happen.
    """
    check_problem(g, a, b, kl_bound)
    if not 0.0 <= corner_tolerance < 1.0:
        raise ValueError(f"corner_tolerance must be in [0, 1), got {corner_tolerance}")
    basis = reduce(g.detach(), a.detach(), inverse_metric)
    radius = math.sqrt(2.0 * kl_bound)
    surplus = b.detach().double().cpu().numpy()
    case, found = _solve(basis, surplus, radius)
    step = (torch.as_tensor(found.x, device=g.device) @ basis.directions).to(g.dtype)
    gradient = StepGradient(basis, surplus, found, inverse_metric, corner_tolerance)
    if torch.is_grad_enabled() and (g.requires_grad or a.requires_grad or b.requires_grad):
        step = StepFunction.apply(g, a, b, step, gradient)
    multipliers = torch.as_tensor(found.multipliers, device=g.device)
    coordinates = np.concatenate([basis.constraints, basis.objective[None]])
    return ConstrainedStep(
        step=step,
        case=case,
        multiplier_kl=found.multiplier_kl,
        multipliers=multipliers,
        predicted_objective=float(basis.objective @ found.x),
        predicted_constraint=torch.as_tensor(surplus + basis.constraints @ found.x, device=g.device),
        predicted_kl=float(0.5 * found.x @ found.x),
        gram=torch.as_tensor(coordinates @ coordinates.T),
        corner=gradient.corner(),
        vjp=gradient,
    )


def _solve(basis: Basis, surplus: Array, radius: float) -> tuple[Case, Solution]:
    """The problem in H-orthonormal coordinates, scaled to unit rows and a unit ball."""
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
            found = unscaled(best, slope / size, slope * best.ball / radius)
            return tight if best.ball > 0.0 else "degenerate", found
    least = least_violation(rows, offsets)
    if least is None:
        raise ArithmeticError("rounding leaves no step of least violation")
    total = float((least.multipliers / size[list(least.binding)]).sum())
    found = unscaled(least, 1.0 / (size * total), least.ball / (radius * total), least_violation=True)
    return "degenerate" if blocked else "recovery", found


def check_problem(g: Tensor, a: Tensor, b: Tensor, kl_bound: float) -> None:
    """Refuses what :func:`constrained_step` does not take."""
    if g.dim() != 1 or not g.is_floating_point():
        raise ValueError(f"g must be a floating-point tensor [P], got {g.dtype} {list(g.shape)}")
    if a.dim() != 2 or a.shape[1] != len(g):
        raise ValueError(f"a must have shape [m, {len(g)}] like g, got {list(a.shape)}")
    if b.shape != a.shape[:1]:
        raise ValueError(f"b must have shape [{a.shape[0]}] like a, got {list(b.shape)}")
    if not 0.0 < kl_bound < math.inf:
        raise ValueError(f"kl_bound must be > 0 and finite, got {kl_bound}")
    off = b == -math.inf
    if not (torch.isfinite(g).all() and torch.isfinite(a).all() and (torch.isfinite(b) | off).all()):
        raise NonFiniteError("g, a and b must be finite (b may be -inf)")
