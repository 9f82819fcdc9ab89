"""The constrained step by a conic solver, in ``m + 1`` variables: the backend ``"cvxpylayers"``.

Letters: ``P`` parameters, ``m`` constraints. An extra convex set depends on x only through ``a_i . x``,
``g . x`` and ``x^T H x``, so the optimum of the reduced problem is the optimum over all P parameters. A
linear limit on the parameters themselves (``r . x + h <= 0``) is one more row of ``a`` and ``b``.

Sources: Achiam et al., ICML 2017 (arXiv 1705.10528), equation 11; Cho and Sun, AAAI 2024 (arXiv 2312.10230),
for the differentiable program; the reduction to ``m + 1`` variables is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fsrl_ext.functional.constrained_step.conic.coordinates import ReducedProblem
from fsrl_ext.functional.constrained_step.conic.program import ExtraConstraints
from fsrl_ext.functional.constrained_step.conic.solve import solve_reduced
from fsrl_ext.functional.constrained_step.problem import ConstrainedStep, Cotangents


def conic_step(
    g: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    kl_bound: float,
    inverse_metric: Callable[[Tensor], Tensor] | None,
    corner_tolerance: float,
    extra_constraints: ExtraConstraints | None,
) -> ConstrainedStep:
    """Solve a problem that was checked; arguments and errors as in ``constrained_step``.

    With extra sets, flat corners and contradictions are not looked for. Near a corner the whole derivative is
    zero, save that a step that is flat to rounding keeps the derivative of a shortest step. With a corner
    tolerance of 0 the solver's derivative is returned wherever it exists; near a corner it is not accurate.

    :raises ArithmeticError: if the solver fails, or misses the optimality conditions by more than 1e-6.
    """
    reduced = ReducedProblem(g, a, b, math.sqrt(2.0 * kl_bound), inverse_metric)
    solution = solve_reduced(reduced, extra_constraints, corner_tolerance)
    with torch.enable_grad():
        weights = reduced.weights(solution.z)
    c, gram, unit = weights.detach(), reduced.gram.detach(), reduced.unit.cpu()
    x = c.to(g.device) @ reduced.images
    return ConstrainedStep(
        step=x.to(g.dtype),
        case=solution.case,
        multiplier_kl=solution.multiplier_kl,
        multipliers=solution.multipliers.to(g.device),
        predicted_objective=float(g.detach().double() @ x),
        predicted_constraint=b.detach().double() + a.detach().double() @ x,
        predicted_kl=float(0.5 * (c @ gram @ c)),
        gram=unit[:, None] * gram * unit,
        corner=solution.corner,
        vjp=ConicGradient(reduced, solution.z, weights, x, solution.differentiable),
    )


@dataclass(frozen=True)
class ConicGradient:
    """The conic step's vector-Jacobian product, through the solver's adjoint.

    With the gradients ``r_i`` (``a_1 .. a_m`` and g) the step is ``x = sum_i c_i H^-1 r_i``, and c is a
    function of the Gram matrix G and of b. So ``r_bar_i = c_i H^-1 y + sum_j (G_bar + G_bar^T)_ij H^-1 r_j``.

    :ivar z: the solver's answer ``[m + 1]``, and ``weights`` c ``[m + 1]``, with gradient.
    :ivar step: x ``[P]``, float64.
    :ivar differentiable: whether there is a derivative; otherwise all cotangents are zero.
    """

    reduced: ReducedProblem
    z: Tensor
    weights: Tensor
    step: Tensor
    differentiable: bool

    def __call__(self, y: Tensor) -> Cotangents:
        return self.with_metric(y)[0]

    def with_metric(self, y: Tensor) -> tuple[Cotangents, list[tuple[Tensor, Tensor]]]:
        reduced, images = self.reduced, self.reduced.images
        if not self.differentiable:
            zeros = torch.zeros_like(images)
            return (zeros[-1], zeros[:-1], zeros.new_zeros(len(images) - 1)), []
        image = reduced.image(y.detach())
        along = (images @ y.detach().double()).cpu()
        # diffcp takes cotangents below 1e-8 for zero, so its cotangent gets unit length.
        (z_bar,) = torch.autograd.grad(self.weights, self.z, along, retain_graph=True)
        length = float(z_bar.norm()) or 1.0
        leaves = (reduced.gram, reduced.surplus)
        by_gram, by_surplus = (
            (length * bar).to(images.device)
            for bar in torch.autograd.grad(
                self.weights, leaves, along / length, retain_graph=True, materialize_grads=True
            )
        )
        turned = (by_gram + by_gram.T) @ images
        bars = torch.outer(self.weights.detach().to(images.device), image) + turned
        bars = bars / reduced.unit[:, None]
        # H stands in the Gram matrix and in H^-1 Z^T c.
        pairs = [(-image, self.step), *zip(-0.5 * turned, images, strict=True)]
        return (bars[-1], bars[:-1], by_surplus), pairs
