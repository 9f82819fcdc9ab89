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

from fsrl_ext.errors import checked


@dataclass(frozen=True)
class CGResult:
    """Answer of :func:`conjugate_gradient`.

    :ivar solution: ``[P]``, always finite.
    :ivar residual: ``|A x - y| / |y|`` of the solution, from the recursion (in float32 it differs from the
        true residual below about 1e-6); 0 for ``y = 0``.
    :ivar iterations: number of products with the matrix.
    :ivar status: ``"converged"``: the residual is below the tolerance; ``"max_iterations"``: it is not, after
        all iterations; ``"indefinite"``: a direction p with ``p.Ap <= 0`` came up; ``"non_finite"``: NaN or
        infinity came up. In the last two cases the solution is that of the iteration before.
    """

    solution: Tensor
    residual: float
    iterations: int
    status: Literal["converged", "max_iterations", "indefinite", "non_finite"]


@checked(shapes={"y": "P"}, at_least_one=("max_iterations",), non_negative=("tolerance",))
def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], y: Tensor, *, max_iterations: int = 15, tolerance: float = 1e-8
) -> CGResult:
    """Solve ``A x = y`` for a symmetric positive definite A that is known by its products.

    :param matvec: ``p [P] -> A p [P]``.
    :param y: ``[P]``.
    :param max_iterations: the largest number of products.
    :param tolerance: the residual ``|A x - y| / |y|`` at which to stop.
    :raises ValueError: for a negative tolerance or fewer than one iteration.
    """
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
    """Concatenate tensors of any shape into ``[P]``."""
    return torch.cat([x.reshape(-1) for x in tensors])


@checked()
def unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split ``[P]`` into views with the names and shapes of ``like``, for ``torch.func.functional_call``.

    :raises ValueError: for another number of entries.
    """
    sizes = [x.numel() for x in like.values()]
    if flat.shape != (sum(sizes),):
        raise ValueError(f"flat must have shape [{sum(sizes)}], got {list(flat.shape)}")
    parts = zip(like.items(), flat.split(sizes), strict=True)
    return {name: part.view(shape.shape) for (name, shape), part in parts}


@checked()
def flat_gradient(
    value: Tensor,
    parameters: Sequence[Tensor],
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> Tensor:
    """Return the gradient of a scalar as ``[P]``, zero for parameters that the scalar does not depend on."""
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
    """Products ``v -> H v + damping v`` with the Fisher matrix H: the KL's Hessian at the old policy.

    The constructor builds the graph of the KL's gradient once, and a product is one backward pass through it.
    The graph lives as long as the object does; it keeps the parameters' values at construction.

    :param kl: 0-dim mean KL divergence between the old policy (detached) and the current one, which must
        be equal: elsewhere the Hessian of the KL is not the Fisher matrix and may be indefinite.
    :param parameters: the parameters that H differentiates in.
    :param damping: added to the diagonal, ``>= 0``.
    :raises ValueError: for a negative damping or a KL that is no scalar or depends on none of the parameters.
    """

    @checked(non_negative=("damping",))
    def __init__(self, kl: Tensor, parameters: Iterable[Tensor], *, damping: float = 0.1) -> None:
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
        """Return ``H v + damping v`` ``[P]`` for ``v [P]``, without gradient."""
        along = self._gradient @ vector.detach()
        return flat_gradient(along, self.parameters, retain_graph=True) + self.damping * vector.detach()


class InverseMetric:
    """Products ``z [P] -> H^-1 z [P]`` by conjugate gradient, for the constrained step and its derivative.

    Conjugate gradient that is stopped early is neither linear nor symmetric, so a derivative that uses it is
    only as exact as its residual is small. The object keeps ``matvec`` alive, with its graph.

    :param matvec: ``z -> H z``, symmetric positive definite and fixed.
    :param max_iterations: the largest number of products with H per call.
    :param tolerance: the residual ``|H x - z| / |z|`` at which to stop.
    :ivar worst_residual: the largest residual of all calls so far.
    """

    @checked(at_least_one=("max_iterations",), non_negative=("tolerance",))
    def __init__(
        self, matvec: Callable[[Tensor], Tensor], *, max_iterations: int = 15, tolerance: float = 1e-8
    ) -> None:
        self.matvec, self.max_iterations, self.tolerance = matvec, max_iterations, tolerance
        self.worst_residual = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        result = conjugate_gradient(
            self.matvec, z, max_iterations=self.max_iterations, tolerance=self.tolerance
        )
        self.worst_residual = max(self.worst_residual, result.residual)
        return result.solution
