"""Products with the inverse of a Fisher matrix: flat vectors, conjugate gradient, Fisher-vector products.

Letter: ``P`` parameters. Flat vectors follow the order of ``parameters``.

Source: Schulman et al., "Trust Region Policy Optimization", ICML 2015 (arXiv 1502.05477), appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class CGResult:
    """Answer of :func:`conjugate_gradient`.

    :ivar solution: ``[P]``, always finite.
    :ivar residual: ``|A x - y| / |y|`` of the solution, from the recursion (in float32 it parts from the
        true one near 1e-6); 0 for ``y = 0``.
    :ivar iterations: products with the matrix.
    :ivar status: ``"converged"``: the residual is below the tolerance; ``"max_iterations"``;
        ``"indefinite"``: a direction p with ``p.Ap <= 0`` came up; ``"non_finite"``: NaN or infinity did.
        In the last two cases the solution is that of the iteration before.
    """

    solution: Tensor
    residual: float
    iterations: int
    status: Literal["converged", "max_iterations", "indefinite", "non_finite"]


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], y: Tensor, *, max_iterations: int = 15, tolerance: float = 1e-8
) -> CGResult:
    """Solve ``A x = y`` for a symmetric positive definite A that is known by its products.

    :param matvec: ``p [P] -> A p [P]``.
    :param y: ``[P]``; not changed.
    :param max_iterations: at most this many products.
    :param tolerance: on ``|A x - y| / |y|``.
    :raises ValueError: for a negative tolerance or fewer than one iteration.
    """
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be >= 1, got {max_iterations}")
    if not tolerance >= 0.0:
        raise ValueError(f"tolerance must be >= 0, got {tolerance}")
    y = y.detach()
    solution, rest = torch.zeros_like(y), y.clone()
    direction, square = y.clone(), float(y @ y)
    start = square
    if not math.isfinite(start):
        return CGResult(solution, math.inf, 0, "non_finite")
    for iteration in range(max_iterations):
        residual = math.sqrt(square / start) if start > 0.0 else 0.0
        if residual <= tolerance:
            return CGResult(solution, residual, iteration, "converged")
        product = matvec(direction).detach()
        curvature = float(direction @ product)
        if not math.isfinite(curvature):
            return CGResult(solution, residual, iteration + 1, "non_finite")
        if curvature <= 0.0:
            return CGResult(solution, residual, iteration + 1, "indefinite")
        length = square / curvature
        following = rest - length * product
        new_square = float(following @ following)
        if not (math.isfinite(new_square) and math.isfinite(length)):
            return CGResult(solution, residual, iteration + 1, "non_finite")
        solution = solution + length * direction
        rest, direction = following, following + (new_square / square) * direction
        square = new_square
    residual = math.sqrt(square / start)
    return CGResult(
        solution, residual, max_iterations, "converged" if residual <= tolerance else "max_iterations"
    )


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Concatenates tensors of any shape into ``[P]``."""
    return torch.cat([x.reshape(-1) for x in tensors])


def unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``[P]`` as views with the names, order and shapes of ``like``, for ``torch.func.functional_call``.

    :raises ValueError: for another number of entries.
    """
    sizes = [x.numel() for x in like.values()]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"flat must have shape [{sum(sizes)}], got {list(flat.shape)}")
    parts = zip(like.items(), flat.split(sizes), strict=True)
    return {name: part.view(shape.shape) for (name, shape), part in parts}


def flat_gradient(
    value: Tensor,
    parameters: Sequence[Tensor],
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Gradient of a scalar as one vector ``[P]``; zero for parameters that it does not depend on."""
    parts = torch.autograd.grad(
        value,
        parameters,
        retain_graph=retain_graph,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return flatten(parts)


class FisherVectorProduct:
    """``v -> H v + damping v``: H is the KL divergence's Hessian at the old policy, its Fisher matrix.

    The graph of the KL's gradient is built once, here; a product is one backward pass through it. The graph
    lives as long as the object does, and belongs to the parameters as they are now.

    :param kl: 0-dim mean KL divergence between the old policy (detached) and the current one, which must
        be equal: elsewhere the Hessian of the KL is not the Fisher matrix and may be indefinite.
    :param parameters: what H is about.
    :param damping: added to the diagonal, ``>= 0``.
    :raises ValueError: for a negative damping or a KL that is no scalar or depends on none of the parameters.
    """

    def __init__(self, kl: Tensor, parameters: Iterable[Tensor], *, damping: float = 0.1) -> None:
        if not 0.0 <= damping < math.inf:
            raise ValueError(f"damping must be >= 0 and finite, got {damping}")
        if kl.dim() != 0:
            raise ValueError(f"kl must be a 0-dim tensor, got shape {list(kl.shape)}")
        self.parameters, self.damping = list(parameters), damping
        if not kl.requires_grad:
            raise ValueError("kl must depend on the parameters, got a constant")
        self._gradient = flat_gradient(kl, self.parameters, create_graph=True)
        if not self._gradient.requires_grad:
            raise ValueError("kl must be curved in the parameters, got a linear function or none of them")

    @torch.enable_grad()
    def __call__(self, vector: Tensor) -> Tensor:
        """``H v + damping v`` ``[P]`` for ``v [P]``, without gradient."""
        along = self._gradient @ vector.detach()
        return flat_gradient(along, self.parameters, retain_graph=True) + self.damping * vector.detach()


class InverseMetric:
    """``z [P] -> H^-1 z [P]``, for the constrained step and its derivative.

    Stopped early, conjugate gradient is neither linear nor symmetric, and a derivative that uses it is as
    exact as its residual is small. It keeps ``matvec`` alive, and with a ``FisherVectorProduct`` its graph.

    :param matvec: ``z -> H z``, symmetric positive definite and fixed.
    :param max_iterations: products with H per call at most.
    :param tolerance: on ``|H x - z| / |z|``.
    :ivar worst_residual: largest one of all calls so far.
    """

    def __init__(
        self, matvec: Callable[[Tensor], Tensor], *, max_iterations: int = 15, tolerance: float = 1e-8
    ) -> None:
        self.matvec, self.max_iterations, self.tolerance = matvec, max_iterations, tolerance
        self.worst_residual = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        found = conjugate_gradient(
            self.matvec, z, max_iterations=self.max_iterations, tolerance=self.tolerance
        )
        self.worst_residual = max(self.worst_residual, found.residual)
        return found.solution
