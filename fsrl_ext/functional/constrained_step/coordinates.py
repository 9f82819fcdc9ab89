"""H-orthonormal coordinates for the span of a few gradients, from products with ``H^-1`` only.

Letters: ``P`` parameters, ``m`` constraints, ``n <= m + 1`` coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.constrained_step.solver import Array


@dataclass(frozen=True)
class Basis:
    """Steps ``x = coordinates @ directions`` with ``x^T H x = |coordinates|^2``.

    :ivar directions: t ``[n, P]``, float64, ``t_j^T H t_k = 1`` if ``j = k`` and 0 otherwise.
    :ivar duals: ``H t`` ``[n, P]``.
    :ivar objective: ``g . t_k`` ``[n]``.
    :ivar constraints: ``a_i . t_k`` ``[m, n]``.
    """

    directions: Tensor
    duals: Tensor
    objective: Array
    constraints: Array


def reduce(g: Tensor, a: Tensor, inverse_metric: Callable[[Tensor], Tensor] | None) -> Basis:
    """Return the basis that Gram-Schmidt makes of ``a_1 .. a_m, g`` in the metric ``H^-1``.

    ``H^-1`` is applied to the part of each gradient that the earlier directions leave. The cancellation then
    happens in the gradients, which are exact, and not in ``g . H^-1 g - ...``: two gradients at an angle
    of 1e-8 keep the length of their difference to eight digits instead of none.

    :param g: ``[P]``, ``a`` ``[m, P]``, finite.
    :param inverse_metric: ``z [P] -> H^-1 z [P]``; ``None`` is the identity.
    :raises ValueError: if ``H^-1`` is found not to be positive definite.
    :raises NonFiniteError: if ``inverse_metric`` returns NaN or infinity.
    """
    gradients = torch.cat([a, g[None]]).double()
    tolerance = torch.finfo(g.dtype).eps ** (2.0 / 3.0)
    directions = gradients.new_zeros(0, gradients.shape[1])
    duals = directions
    for gradient in gradients:
        largest = gradient.abs().max() if len(gradient) else gradient.new_zeros(())
        if largest == 0.0:
            continue
        rest = gradient / largest
        explained = directions @ rest
        for _ in range(2):
            rest = rest - (directions @ rest) @ duals
        scale = rest.abs().max()
        if scale == 0.0:
            continue
        rest = rest / scale
        image = rest if inverse_metric is None else inverse_metric(rest.to(g.dtype)).detach().double()
        if not torch.isfinite(image).all():
            raise NonFiniteError("inverse_metric returned NaN or infinity")
        image = image - (duals @ image) @ directions
        square = float(rest @ image)
        total = float(explained @ explained) + square * float(scale) ** 2
        if square * float(scale) ** 2 <= tolerance**2 * total:
            if len(directions) and abs(square) * float(scale) ** 2 <= tolerance * abs(total):
                continue
            raise ValueError(f"inverse_metric must be positive definite, got z . H^-1 z = {square}")
        directions = torch.cat([directions, image[None] / square**0.5])
        duals = torch.cat([duals, rest[None] / square**0.5])
    objective, constraints = directions @ g.double(), a.double() @ directions.T
    return Basis(directions, duals, objective.cpu().numpy(), constraints.cpu().numpy())
