"""Vector-Jacobian product of the constrained step: one product with ``H^-1`` per cotangent.

With the binding constraints S as equations, the step solves ``lambda H x + g + sum_S nu_i a_i = 0``. Its
linearisation is symmetric, so the cotangent y of x meets the same system::

    lambda H p + sum_S mu_i a_i + kappa H x = y,    a_i . p = 0,    H x . p = 0
    g_bar = -p,    b_bar_i = -mu_i,    a_bar_i = -nu_i p - mu_i x

A step that does not use the trust region up is the shortest one with its constraints: ``lambda = 1``, no
kappa, and no g. In a recovery ``sqrt(s_i)`` depends on ``a_i`` as well, which adds a term. H is a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsrl_ext.functional._step_basis import Basis
from fsrl_ext.functional._step_solver import Array

# Directions that only rounding tells apart carry no derivative: it does not exist there.
_RANK = 1e-10


@dataclass(frozen=True)
class Solution:
    """A step in coordinates, and what holds there.

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
    """``y [P] -> (g_bar [P], a_bar [m, P], b_bar [m])``, float64."""

    basis: Basis
    surplus: Array
    solution: Solution
    inverse_metric: Callable[[Tensor], Tensor] | None

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found, directions = self.solution, self.basis.directions
        image = y if self.inverse_metric is None else self.inverse_metric(y).detach()
        y, image = y.double(), image.double()
        g_bar = torch.zeros_like(y)
        a_bar, b_bar = y.new_zeros(len(self.surplus), len(y)), y.new_zeros(len(self.surplus))
        if found.least_violation and found.multiplier_kl == 0.0:
            # Contradicting constraints: the least perturbation of an angle moves the step by any amount.
            return g_bar, a_bar, b_bar
        binding = list(found.binding)
        rows = self.basis.constraints[binding]
        size = np.linalg.norm(rows, axis=1)
        rows = rows / size[:, None]
        length = float(np.linalg.norm(found.x))
        flat = found.multiplier_kl == 0.0
        span = rows if flat or found.least_violation else np.vstack([rows, found.x / length])
        along = (directions @ y).cpu().numpy()
        weights = np.linalg.lstsq(span.T, along, rcond=_RANK)[0]
        p = image - _vector(weights @ span, y) @ directions
        nu, mu = found.multipliers[binding], weights[: len(binding)]
        if flat:
            nu = -np.linalg.lstsq(rows.T, found.x, rcond=_RANK)[0] / size
        else:
            p = p / found.multiplier_kl
            g_bar = g_bar if found.least_violation else -p
        if found.least_violation:
            shares = nu * size / (nu @ size)
            mu = mu - mu.sum() * shares
        mu = mu / size
        step = _vector(found.x, y) @ directions
        a_bar[binding] = -torch.outer(_vector(nu, y), p) - torch.outer(_vector(mu, y), step)
        if found.least_violation:
            level = float(shares @ (self.surplus[binding] / size + rows @ found.x))
            a_bar[binding] += _vector(level * mu[:, None] * rows, y) @ directions
        b_bar[binding] = -_vector(mu, y)
        return g_bar, a_bar, b_bar


def _vector(values: Array, like: Tensor) -> Tensor:
    return torch.as_tensor(values, device=like.device)


class StepFunction(torch.autograd.Function):
    """Hands ``step`` on, with the gradient of ``gradient`` for g, a and b."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, a: Tensor, b: Tensor, step: Tensor, gradient: StepGradient) -> Tensor:
        ctx.gradient, ctx.dtypes = gradient, (g.dtype, a.dtype, b.dtype)
        return step.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:
        bars = ctx.gradient(y)
        return (*(bar.to(dtype) for bar, dtype in zip(bars, ctx.dtypes, strict=True)), None, None)
