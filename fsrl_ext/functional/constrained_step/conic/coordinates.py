"""The constrained step's problem in unit coordinates, differentiable: what a conic solver is given.

Letters: ``P`` parameters, ``m`` constraints, ``n`` coordinates. A step is ``x = lift(z)`` with ``z [n]`` in
the unit ball, and ``b_i + a_i . x <= 0`` becomes ``rows_i . z + offsets_i <= 0`` with rows of unit length.

Reduced coordinates (``n = m + 1``): with ``Z = [a_1 .. a_m, g]`` and the Cholesky factor
``L L^T = Z H^-1 Z^T`` a step of the span is ``x = H^-1 Z^T c``, ``z = L^T c / sqrt(2 delta)``, and ``Z x`` is
``sqrt(2 delta) L z``: no product with H is needed, and no matrix of P rows and columns. H is a constant of
the differentiation, which takes one product with ``H^-1`` per cotangent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsrl_ext.errors import NonFiniteError

# Squared sine of the angle below which a gradient counts as a combination of those before it. The products
# Z H^-1 Z^T do not resolve less than about 1e-16.
_PARALLEL = 1e-12
# A constraint this far inside (in units of its largest effect in the trust region) never binds.
_NEVER = -2.0


@dataclass(frozen=True)
class Coordinates:
    """A problem in the unit ball, float64; everything but the sizes carries gradient.

    :ivar rows: ``[m, n]`` of unit length, or zero for a zero gradient.
    :ivar offsets: ``[m]``, ``b_i / (radius sizes_i)``, at least -2; of a zero gradient 1 if blocked, else -2.
    :ivar objective: ``[n]`` of unit length, or zero.
    :ivar sizes: ``sqrt(a_i . H^-1 a_i)`` ``[m]``, a constant.
    :ivar slope: ``sqrt(g . H^-1 g)``, a constant.
    :ivar lift: ``z [n] -> x [P]``.
    """

    rows: Tensor
    offsets: Tensor
    objective: Tensor
    sizes: Tensor
    slope: float
    lift: Callable[[Tensor], Tensor]


def reduced_coordinates(
    g: Tensor, a: Tensor, b: Tensor, radius: float, inverse_metric: Callable[[Tensor], Tensor] | None
) -> Coordinates:
    """The problem in the span of ``H^-1 a_1 .. H^-1 a_m, H^-1 g``, in this order.

    A gradient that is (to a sine of 1e-6) a combination of those before it gets no coordinate of its own;
    its coordinate is there, and without effect.

    :param g: ``[P]``, ``a`` ``[m, P]``, ``b`` ``[m]``; float64.
    :raises ValueError: if ``H^-1`` is found not to be positive definite.
    :raises NonFiniteError: if it gives NaN or infinity.
    """
    gradients = torch.cat([a, g[None]])
    unit = gradients.detach().abs().amax(dim=1, keepdim=True)
    gradients = gradients / torch.where(unit > 0.0, unit, 1.0)
    images = torch.stack([_apply(inverse_metric, z.detach()) for z in gradients])
    gram: Tensor = _Gram.apply(gradients, images)
    square = gram.detach().diagonal()
    if (square[unit.squeeze(1) > 0.0] <= 0.0).any():
        raise ValueError(f"inverse_metric must be positive definite, got z . H^-1 z = {float(square.min())}")
    kept = _independent(gram.detach())
    factor = torch.linalg.cholesky(gram[kept][:, kept])
    values = torch.linalg.solve_triangular(factor, gram[kept], upper=False).T
    values = torch.nn.functional.pad(values, (0, len(gradients) - len(kept)))

    def lift(z: Tensor) -> Tensor:
        right = radius * z[: len(kept), None]
        weights = torch.linalg.solve_triangular(factor.T, right, upper=True).squeeze(1)
        x: Tensor = _Combination.apply(weights, gradients[kept], images[kept], inverse_metric)
        return x

    return _normalised(values, unit.squeeze(1), b, radius, lift)


def full_coordinates(
    g: Tensor, a: Tensor, b: Tensor, radius: float, metric_root: Tensor | None
) -> Coordinates:
    """The problem in all P parameters: ``z = R^T x / sqrt(2 delta)`` with ``H = R R^T``.

    :param g: ``[P]``, ``a`` ``[m, P]``, ``b`` ``[m]``; float64.
    :param metric_root: R ``[P, P]``, lower triangular; ``None`` is the identity.
    """
    values = torch.cat([a, g[None]])
    if metric_root is not None:
        values = torch.linalg.solve_triangular(metric_root, values.T, upper=False).T

    def lift(z: Tensor) -> Tensor:
        if metric_root is None:
            return radius * z
        return torch.linalg.solve_triangular(metric_root.T, radius * z[:, None], upper=True).squeeze(1)

    return _normalised(values, values.new_ones(len(values)), b, radius, lift)


def _normalised(
    values: Tensor, unit: Tensor, b: Tensor, radius: float, lift: Callable[[Tensor], Tensor]
) -> Coordinates:
    """``values * unit`` are the rows of a and g; the last one is g."""
    moves = values.detach().abs().amax(dim=1) > 0.0
    length = torch.where(moves[:, None], values, 1.0).norm(dim=1)
    rows = torch.where(moves[:, None], values / length[:, None], 0.0)
    sizes = torch.where(moves, length * unit, 0.0)
    still = torch.where(b > 0.0, 1.0, _NEVER).to(b)
    on = moves[:-1] & torch.isfinite(b)
    offsets = torch.where(on, b, 0.0) / (radius * torch.where(moves, sizes, 1.0)[:-1])
    offsets = torch.where(on, offsets, still)
    fixed = sizes.detach()
    return Coordinates(rows[:-1], offsets.clamp(min=_NEVER), rows[-1], fixed[:-1], float(fixed[-1]), lift)


def _independent(gram: Tensor) -> Tensor:
    """Indices of the gradients that are no combination of those before them."""
    kept: list[int] = []
    for k in range(len(gram)):
        if gram[k, k] <= 0.0:
            continue
        rest = gram[k, k]
        if kept:
            factor = torch.linalg.cholesky(gram[kept][:, kept])
            along = torch.linalg.solve_triangular(factor, gram[kept, k : k + 1], upper=False)
            rest = rest - (along * along).sum()
        if rest > _PARALLEL * gram[k, k]:
            kept.append(k)
    return torch.tensor(kept, dtype=torch.long, device=gram.device)


def _apply(inverse_metric: Callable[[Tensor], Tensor] | None, z: Tensor) -> Tensor:
    image = z if inverse_metric is None else inverse_metric(z).detach().to(z)
    if not torch.isfinite(image).all():
        raise NonFiniteError("inverse_metric returned NaN or infinity")
    return image


class _Gram(torch.autograd.Function):
    """``Z H^-1 Z^T`` from Z ``[k, P]`` and its images ``[k, P]``, with the derivative of both factors."""

    @staticmethod
    def forward(ctx: Any, gradients: Tensor, images: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        gram = gradients @ images.T
        return 0.5 * (gram + gram.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:
        (images,) = ctx.saved_tensors
        return (y + y.T) @ images, None


class _Combination(torch.autograd.Function):
    """``H^-1 Z^T c`` from c ``[k]``, Z ``[k, P]`` and its images."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        gradients: Tensor,
        images: Tensor,
        inverse_metric: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        ctx.save_for_backward(weights, images)
        ctx.inverse_metric = inverse_metric
        return weights @ images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:
        weights, images = ctx.saved_tensors
        return images @ y, torch.outer(weights, _apply(ctx.inverse_metric, y)), None, None
