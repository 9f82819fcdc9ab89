"""Trust-region machinery: conjugate gradient, Fisher-vector products, line search.

Letters: ``P`` parameters, ``m`` constraints. Flat vectors follow the order of ``parameters``.

Sources: Schulman et al., "Trust Region Policy Optimization", ICML 2015 (arXiv 1502.05477), appendix C;
Achiam et al., "Constrained Policy Optimization", ICML 2017 (arXiv 1705.10528), for the acceptance of a step.
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


@dataclass(frozen=True, kw_only=True)
class Surrogates:
    """What decides about a step, on the data of the update at the current parameters.

    :ivar reward: mean of ratio times reward advantage; to be raised.
    :ivar costs: mean of ratio times cost advantage, one number per constraint.
    :ivar kl: mean KL divergence between the old policy and the current one, in nats.
    """

    reward: float
    costs: tuple[float, ...]
    kl: float

    def is_finite(self) -> bool:
        return all(math.isfinite(x) for x in (self.reward, *self.costs, self.kl))


Rejection = Literal["non_finite", "kl", "cost", "reward"]


@dataclass(frozen=True, kw_only=True)
class LineSearchResult:
    """Answer of :func:`line_search`.

    :ivar fraction: part of the step that was taken; 0 if none was, and the parameters are then the old
        ones, bit for bit.
    :ivar before: surrogates at the old parameters.
    :ivar after: surrogates at the parameters as they are now.
    :ivar rejections: why each longer step was refused, longest first.
    """

    fraction: float
    before: Surrogates
    after: Surrogates
    rejections: tuple[Rejection, ...]

    @property
    def accepted(self) -> bool:
        return self.fraction > 0.0


@torch.no_grad()
def line_search(
    parameters: Iterable[Tensor],
    step: Tensor,
    evaluate: Callable[[], Surrogates],
    *,
    kl_bound: float,
    cost_slack: Sequence[float] = (),
    improve_reward: bool = True,
    max_backtracks: int = 20,
    shrink: float = 0.8,
) -> LineSearchResult:
    """Take the longest of ``step, shrink step, shrink^2 step, ..`` that keeps what the model promised.

    Accepted is the first step with ``kl <= kl_bound``, with every cost surrogate risen by at most its slack,
    and with a higher reward surrogate. If there is none, if the step or a value at the old parameters is not
    finite, or if ``evaluate`` raises, the old parameters stay, bit for bit.

    :param parameters: changed in place.
    :param step: ``[P]``, in the order of the parameters.
    :param evaluate: surrogates at the current parameters; called without gradient, once at the old ones and
        once per trial.
    :param kl_bound: delta, in nats.
    :param cost_slack: by how much each cost surrogate may rise: ``max(-b_i, 0)``, or ``inf`` to ignore it.
    :param improve_reward: false during recovery, when reward may fall.
    :param max_backtracks: trials after the full step.
    :param shrink: in (0, 1).
    :raises ValueError: for settings outside these ranges and lengths that do not match.
    """
    parameters, slack = list(parameters), tuple(float(x) for x in cost_slack)
    if not 0.0 < kl_bound < math.inf:
        raise ValueError(f"kl_bound must be > 0 and finite, got {kl_bound}")
    if not 0.0 < shrink < 1.0:
        raise ValueError(f"shrink must be in (0, 1), got {shrink}")
    if max_backtracks < 0:
        raise ValueError(f"max_backtracks must be >= 0, got {max_backtracks}")
    if any(not x >= 0.0 for x in slack):
        raise ValueError(f"cost_slack must be >= 0, got {list(slack)}")
    if step.shape != (sum(p.numel() for p in parameters),):
        raise ValueError(f"step must have one entry per parameter, got {list(step.shape)}")
    before = evaluate()
    if len(before.costs) != len(slack):
        raise ValueError(f"cost_slack must have {len(before.costs)} entries like costs, got {len(slack)}")
    old = [p.clone() for p in parameters]
    parts = [x.view_as(p) for x, p in zip(step.split([p.numel() for p in parameters]), old, strict=True)]
    rejections: list[Rejection] = []
    sound = before.is_finite() and bool(torch.isfinite(step).all())

    def refusal(after: Surrogates) -> Rejection | None:
        if not after.is_finite():
            return "non_finite"
        if after.kl > kl_bound:
            return "kl"
        if any(new > now + room for new, now, room in zip(after.costs, before.costs, slack, strict=True)):
            return "cost"
        return "reward" if improve_reward and after.reward <= before.reward else None

    accepted = False
    try:
        for trial in range(max_backtracks + 1 if sound else 0):
            fraction = shrink**trial
            for parameter, start, part in zip(parameters, old, parts, strict=True):
                parameter.copy_(start + fraction * part)
            after = evaluate()
            reason = refusal(after)
            accepted = reason is None
            if reason is None:
                return LineSearchResult(
                    fraction=fraction, before=before, after=after, rejections=tuple(rejections)
                )
            rejections.append(reason)
    finally:
        if not accepted:
            for parameter, start in zip(parameters, old, strict=True):
                parameter.copy_(start)
    return LineSearchResult(
        fraction=0.0, before=before, after=before, rejections=tuple(rejections) or ("non_finite",)
    )
