"""What goes into a constrained step and what comes out: checks, cases, the answer.

Letters: ``P`` parameters, ``m`` constraints. Both backends of
:func:`~fsrl_ext.functional.constrained_step.constrained_step` take this input and return this answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from fsrl_ext.errors import NonFiniteError

Case = Literal["inactive", "active", "recovery", "degenerate"]
Corner = Literal["edge", "flat", "contradiction", "parallel"]

# Cotangents of g [P], a [m, P] and b [m].
Cotangents = tuple[Tensor, Tensor, Tensor]


class StepVJP(Protocol):
    """The vector-Jacobian product of a step: ``y [P] -> (g_bar [P], a_bar [m, P], b_bar [m])``, float64."""

    def __call__(self, y: Tensor) -> Cotangents:
        """Return the cotangents of g, a and b for the cotangent y of the step."""

    def with_metric(self, y: Tensor) -> tuple[Cotangents, list[tuple[Tensor, Tensor]]]:
        """Return the same, and what a change dH of the metric does to the step.

        The second entry holds pairs ``(u, w)`` of vectors ``[P]`` with ``y . dx = sum u . dH w``.
        """


@dataclass(frozen=True, kw_only=True)
class ConstrainedStep:
    """Answer of :func:`~fsrl_ext.functional.constrained_step.constrained_step`.

    ``case`` is the first of these that is true:

    - ``"degenerate"``, blocked: some constraint has a zero gradient and ``b > 0``, so no step meets it.
      The step is the shortest one that meets the others (zero if they are met, or if there are none),
      without regard to the objective; if that does not fit into the trust region, the step is that of a
      recovery for the others.
    - ``"recovery"``: no step inside the trust region meets every constraint (or only one on its edge
      does). The step has the least ``max_i (b_i + a_i . x) / sqrt(s_i)`` with ``s_i = a_i . H^-1 a_i``.
    - ``"degenerate"``, flat: the objective does not use the trust region up. Either ``g = 0``, or g
      lies in the span of the binding constraints' gradients (g parallel to a). The step is the shortest
      optimal one: ``-(b/s) v`` for one binding constraint, zero if ``g = 0`` and all ``b <= 0``.
    - ``"active"``: some constraint binds and changes the step; the trust region binds too.
    - ``"inactive"``: the step ``-sqrt(2 delta / q) u`` of TRPO meets every constraint.

    With extra convex sets ``"active"`` means that some constraint or set changes the step, and a trust region
    of which the sets leave nothing gives ``"degenerate"`` and a step of zero.

    :ivar step: x ``[P]``, dtype and device of ``g``.
    :ivar case: see above.
    :ivar multiplier_kl: lambda; 0 in a flat case, and where constraints contradict each other inside the
        trust region.
    :ivar multipliers: nu ``[m]``, float64, nonnegative: ``g + lambda H x + sum_i nu_i a_i = 0`` (with
        extra sets, whose multipliers are not reported, their terms are missing). For a step of least
        violation the multipliers are those of its own problem, without g and with ``sum_i nu_i = 1``:
        ``lambda H x + sum_i nu_i a_i = 0``. All are zero for ``g = 0``, and if a constraint is blocked while
        the others are met.
    :ivar predicted_objective: ``g . x``; the expected improvement is its negative.
    :ivar predicted_constraint: ``b_i + a_i . x`` ``[m]``, float64; at most rounding above zero, save in a
        recovery and for blocked constraints.
    :ivar predicted_kl: ``x^T H x / 2`` as far as ``inverse_metric`` tells; at most ``kl_bound``.
    :ivar gram: inner products in the metric ``H^-1`` of ``a_1 .. a_m, g``, ``[m + 1, m + 1]``, float64, on
        the CPU: s on the diagonal and q in its last place, r in the last row and column.
    :ivar corner: names where the derivative does not exist, or is so large that it says nothing; its singular
        part is then left out. ``"edge"``: the constraints leave next to nothing of the trust region;
        ``"flat"``: they leave next to nothing of the objective; ``"contradiction"``: a recovery between
        constraints that pull against each other; ``"parallel"``, of the backend ``"cvxpylayers"`` alone: one
        of the gradients is a combination of others, to a sine of 1e-6. ``None`` elsewhere.
    :ivar vjp: the step's vector-Jacobian product. ``vjp(y)`` is as good as ``step.backward(y)``, may be
        called any number of times and needs no graph; it keeps about ``2 (m + 1)`` vectors ``[P]`` and
        ``inverse_metric`` alive.
    """

    step: Tensor
    case: Case
    multiplier_kl: float
    multipliers: Tensor
    predicted_objective: float
    predicted_constraint: Tensor
    predicted_kl: float
    gram: Tensor
    corner: Corner | None
    vjp: StepVJP = field(repr=False, compare=False)


def check_problem(g: Tensor, a: Tensor, b: Tensor, kl_bound: float, corner_tolerance: float) -> None:
    """Refuse what no backend takes; arguments as in ``constrained_step``.

    :raises ValueError: for shapes, a bound or a tolerance that are not allowed.
    :raises NonFiniteError: for NaN or infinite entries, save ``b = -inf``.
    """
    if g.dim() != 1 or not g.is_floating_point():
        raise ValueError(f"g must be a floating-point tensor [P], got {g.dtype} {list(g.shape)}")
    if a.dim() != 2 or a.shape[1] != len(g):
        raise ValueError(f"a must have shape [m, {len(g)}] like g, got {list(a.shape)}")
    if b.shape != a.shape[:1]:
        raise ValueError(f"b must have shape [{a.shape[0]}] like a, got {list(b.shape)}")
    if not 0.0 < kl_bound < math.inf:
        raise ValueError(f"kl_bound must be > 0 and finite, got {kl_bound}")
    if not 0.0 <= corner_tolerance < 1.0:
        raise ValueError(f"corner_tolerance must be in [0, 1), got {corner_tolerance}")
    off = b == -math.inf
    if not (torch.isfinite(g).all() and torch.isfinite(a).all() and (torch.isfinite(b) | off).all()):
        raise NonFiniteError("g, a and b must be finite (b may be -inf)")
