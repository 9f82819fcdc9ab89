"""Vector-Jacobian product of the constrained step: one product with ``H^-1`` per cotangent.

With the binding constraints S as equations, the step solves ``lambda H x + g + sum_S nu_i a_i = 0``. Its
linearisation is symmetric, so the cotangent y of x meets the same system::

    lambda H p + sum_S mu_i a_i + kappa H x = y,    a_i . p = 0,    H x . p = 0
    g_bar = -p,    b_bar_i = -mu_i,    a_bar_i = -nu_i p - mu_i x

A step that does not use the trust region up is the shortest one that meets its constraints: ``lambda = 1``,
and kappa and g drop out. In a recovery ``sqrt(s_i)`` depends on ``a_i`` as well, which adds a term.

H stands in two of the step's equations, so the cotangent of H is a sum of bilinear forms::

    y . dx = -(lambda p + kappa x / 2) . dH x      (and in a recovery - sum_i w_i v_i . dH v_i)

The system is singular in three corners; near one, the terms that would grow without bound are set to zero:

- flat (``A -> 0``): the part of g that the constraints leave has no certain direction. ``p = 0``; mu and
  kappa stay.
- edge (``B -> 0``, the feasible set shrinks to a point): x lies in the span of the binding gradients and
  moves sideways like a square root. ``kappa = 0``; with one constraint that gives ``b_bar = -(v . y) / s``.
- contradiction (a recovery whose constraints pull against each other): every cotangent is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.functional.constrained_step.coordinates import Basis
from fsrl_ext.functional.constrained_step.problem import Corner, Cotangents
from fsrl_ext.functional.constrained_step.solver import Array

# Singular values below this are rounding: the derivative along their directions does not exist.
_RANK = 1e-10
# The solver calls an objective flat below a tenth of this sine.
_FLAT = 1e-9


@dataclass(frozen=True)
class Solution:
    """A step in coordinates, with its multipliers and its binding constraints.

    :ivar x: ``[n]``; ``multiplier_kl`` and ``multipliers`` ``[m]`` as in ``ConstrainedStep``.
    :ivar binding: constraints that hold with equality, or share the largest violation.
    :ivar least_violation: whether the step is that of a recovery.
    """

    x: Array
    multiplier_kl: float
    multipliers: Array
    binding: tuple[int, ...]
    least_violation: bool


@dataclass(frozen=True)
class StepGradient:
    """The closed form's vector-Jacobian product: ``y [P] -> (g_bar [P], a_bar [m, P], b_bar [m])``, float64.

    :ivar surplus: b ``[m]``.
    :ivar corner_tolerance: sine of the angle below which two directions count as one.
    """

    basis: Basis
    surplus: Array
    solution: Solution
    inverse_metric: Callable[[Tensor], Tensor] | None
    corner_tolerance: float

    def corner(self) -> Corner | None:
        """Name the corner that the solution lies in or near."""
        solution, (rows, size) = self.solution, self._binding_rows()
        if solution.least_violation:
            pull = float(solution.multipliers[list(solution.binding)] @ size)
            opposed = (
                solution.multiplier_kl * float(np.linalg.norm(solution.x)) <= self.corner_tolerance * pull
            )
            return "contradiction" if opposed else None
        if self._apart(self.basis.objective, rows) <= max(self.corner_tolerance, _FLAT):
            return "flat"
        # A shortest step (without a multiplier of the KL bound) lies in the span of the rows anyway.
        on_edge = solution.multiplier_kl > 0.0 and self._apart(solution.x, rows) <= self.corner_tolerance
        return "edge" if on_edge else None

    def __call__(self, y: Tensor) -> Cotangents:
        return self.with_metric(y)[0]

    def with_metric(self, y: Tensor) -> tuple[Cotangents, list[tuple[Tensor, Tensor]]]:
        """Return the cotangents and the pairs ``(u, w)`` of a change dH: ``y . dx = sum u . dH w``.

        The vectors are ``[P]``, float64. H is that of ``inverse_metric``; in corners the singular parts are
        left out.
        """
        solution, directions, corner = self.solution, self.basis.directions, self.corner()
        image = y if self.inverse_metric is None else self.inverse_metric(y).detach()
        y, image = y.double(), image.double()
        g_bar = torch.zeros_like(y)
        a_bar, b_bar = y.new_zeros(len(self.surplus), len(y)), y.new_zeros(len(self.surplus))
        if corner == "contradiction":
            return (g_bar, a_bar, b_bar), []
        binding, (rows, size) = list(solution.binding), self._binding_rows()
        shortest = solution.multiplier_kl == 0.0
        alone = shortest or solution.least_violation or corner == "edge"
        span = rows if alone else np.vstack([rows, solution.x / np.linalg.norm(solution.x)])
        along = (directions @ y).cpu().numpy()
        weights = np.linalg.lstsq(span.T, along, rcond=_RANK)[0]
        p = image - _vector(weights @ span, y) @ directions
        nu, mu = solution.multipliers[binding], weights[: len(binding)]
        kappa = 0.0 if alone else float(weights[-1]) / float(np.linalg.norm(solution.x))
        turned = p  # lambda p; the shortest step has lambda = 1
        if shortest:
            nu = -np.linalg.lstsq(rows.T, solution.x, rcond=_RANK)[0] / size
        elif corner == "flat":
            p = turned = torch.zeros_like(p)
        else:
            p = p / solution.multiplier_kl
            g_bar = g_bar if solution.least_violation else -p
        if solution.least_violation:
            shares = nu * size / (nu @ size)
            kappa = -float(mu.sum()) * solution.multiplier_kl / float(nu @ size)
            mu = mu - mu.sum() * shares
        mu = mu / size
        step = _vector(solution.x, y) @ directions
        a_bar[binding] = -torch.outer(_vector(nu, y), p) - torch.outer(_vector(mu, y), step)
        pairs = [(-turned - 0.5 * kappa * step, step)]
        if solution.least_violation:
            level = float(shares @ (self.surplus[binding] / size + rows @ solution.x))
            a_bar[binding] += _vector(level * mu[:, None] * rows, y) @ directions
            images = _vector(rows, y) @ directions  # v_i / sqrt(s_i)
            pairs += [
                (-0.5 * level * w * v, v) for w, v in zip((mu * size).tolist(), images, strict=True) if w
            ]
        b_bar[binding] = -_vector(mu, y)
        return (g_bar, a_bar, b_bar), pairs

    def _binding_rows(self) -> tuple[Array, Array]:
        """Return unit rows ``[k, n]`` of the k binding constraints, and their sizes ``[k]``."""
        rows = self.basis.constraints[list(self.solution.binding)]
        size = np.linalg.norm(rows, axis=1)
        return rows / size[:, None], size

    @staticmethod
    def _apart(vector: Array, rows: Array) -> float:
        """Return the sine of the angle between a vector and the span of the rows; 0 for a zero vector."""
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            return 0.0
        unit = vector / length
        rest = unit - np.linalg.lstsq(rows.T, unit, rcond=_RANK)[0] @ rows
        return float(np.linalg.norm(rest))


def _vector(values: Array, like: Tensor) -> Tensor:
    return torch.as_tensor(values, device=like.device)
