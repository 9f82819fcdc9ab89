"""Gradients through K constrained steps, by one reverse sweep.

Letters: ``P`` parameters, ``m`` constraints, ``K`` inner steps, ``n`` cotangents. An inner step is::

    phi^{k+1} = phi^k + alpha_k x(g(phi^k), a(phi^k), b(phi^k))

with the constrained step x, its accepted fraction ``alpha_k`` (a constant; 0 for a rejected step), and the
gradients g and a of surrogates on fixed data. For a cotangent ``p_K`` of ``phi^K``::

    p_k = p_{k+1} + alpha_k grad_phi [ g_bar . g(phi^k) + a_bar . a(phi^k) + b_bar b(phi^k) ]

where ``g_bar, a_bar, b_bar`` are the step's vector-Jacobian product with ``y = p_{k+1}``. Each step and
cotangent takes one product with ``H^-1`` and one Hessian-vector product, and nothing is ``P x P``. Where a
step was rejected ``p_k = p_{k+1}``.

A metric that moves with phi, as a Fisher matrix does, adds ``sum_j u_j . H(phi) w_j`` to the bracket, with
the pairs ``(u_j, w_j)`` of the step's derivative in H. Its size matters: surrogate gradients lie in the range
of the Fisher matrix *at the same phi*, and a fixed ``H^-1`` of another phi multiplies the part outside of its
own range by one over the damping. Both backends of the step give these pairs.

Sources: Cho and Sun, "Constrained Meta-RL for Adaptable Safety Guarantee with Differentiable Convex
Programming", AAAI 2024 (arXiv 2312.10230), for the meta-gradient through the steps; Finn et al., ICML 2017
(arXiv 1703.03400), section 5.2, for the first-order variant; Nichol et al., 2018 (arXiv 1803.02999), for
Reptile. The sweep is ours; the code published with the first paper builds the Jacobian row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from fsrl_ext.errors import NonFiniteError, checked
from fsrl_ext.functional.constrained_step import (
    Backend,
    ConstrainedStep,
    ExtraConstraints,
    constrained_step,
)
from fsrl_ext.functional.trust_region import SurrogateLoss, surrogate_gradients

Mode = Literal["exact", "first_order", "reptile"]
LimitGradient = Literal["score", "detach"]


class MovingMetric(Protocol):
    """H as a function of the parameters ``phi [P]``."""

    def inverse(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        """Return ``z [P] -> H(phi)^-1 z [P]``, without gradient."""

    def form(self, phi: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """Return ``u . H(phi) w`` ``[]`` for ``u, w [P]``, differentiable in phi; up to a constant."""


@dataclass(frozen=True, kw_only=True)
class InnerStep:
    """One step of an adaptation, with all that its derivative and its replay need.

    :ivar parameters: ``phi^k`` ``[P]``, before the step.
    :ivar loss: surrogates on the data of this step, ``mean(pi_phi / pi_old A)`` with pi_old a constant:
        ``A log pi_phi`` has the same gradient and another Hessian.
    :ivar surplus: ``b(phi^k)`` ``[m]``.
    :ivar costs: the cost surrogates at ``phi^k`` ``[m]``.
    :ivar step: the constrained step at ``phi^k``.
    :ivar kl_bound: delta, in nats.
    :ivar inverse_metric: ``H^-1`` at ``phi^k``; ``None`` is the identity.
    :ivar metric: H where it moves with the parameters; ``None`` for one that does not.
    :ivar backend: of ``constrained_step``, as is ``extra_constraints``.
    :ivar fraction: ``alpha_k`` in [0, 1] that the line search accepted; ``dataclasses.replace`` sets it.
    """

    parameters: Tensor
    loss: SurrogateLoss = field(repr=False)
    surplus: Tensor
    costs: Tensor
    step: ConstrainedStep
    kl_bound: float
    inverse_metric: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    metric: MovingMetric | None = field(default=None, repr=False)
    backend: Backend = "exact"
    extra_constraints: ExtraConstraints | None = None
    fraction: float = 1.0

    @property
    def adapted(self) -> Tensor:
        """``phi^{k+1}`` ``[P]``."""
        if self.fraction == 0.0:
            return self.parameters
        return self.parameters + self.fraction * self.step.step.detach()

    def solve_at(self, phi: Tensor, g: Tensor, a: Tensor, surplus: Tensor) -> Tensor:
        """Return the constrained step ``[P]`` at other parameters ``[P]``, in the metric of these."""
        return constrained_step(
            g,
            a,
            surplus,
            kl_bound=self.kl_bound,
            inverse_metric=self.inverse_metric if self.metric is None else self.metric.inverse(phi),
            backend=self.backend,
            extra_constraints=self.extra_constraints,
        ).step


@dataclass(frozen=True, kw_only=True)
class MetaGradient:
    """Answer of :func:`meta_gradient`.

    :ivar gradients: ``[n, P]`` at ``theta = phi^0``, in the order of the cotangents.
    :ivar cosine: ``[n]`` between first-order and exact gradient; NaN unless the mode is ``"exact"``, and
        where one of them is zero.
    :ivar cases: how many accepted steps had which case, and how many were ``"rejected"``.
    :ivar corners: how many accepted steps lie in which corner, where derivatives lack their singular part.
    """

    gradients: Tensor
    cosine: Tensor
    cases: Counter[str]
    corners: Counter[str]


@checked(shapes={"parameters": "P", "surplus": "m"})
def inner_step(
    parameters: Tensor,
    loss: SurrogateLoss,
    surplus: Tensor,
    *,
    kl_bound: float,
    inverse_metric: Callable[[Tensor], Tensor] | None = None,
    metric: MovingMetric | None = None,
    backend: Backend = "exact",
    extra_constraints: ExtraConstraints | None = None,
) -> InnerStep:
    """Solve one inner step; the line search is the caller's.

    :param parameters: ``phi^k`` ``[P]``.
    :param loss: see :class:`InnerStep`.
    :param surplus: b ``[m]``, in the unit of the cost surrogates: ``(J_c - limit) / T``.
    :param kl_bound: delta, in nats.
    :param inverse_metric: a constant ``H^-1``; ``None`` is the identity.
    :param metric: in its place, H as a function of the parameters.
    :param backend: of ``constrained_step``, as is ``extra_constraints``. The derivative of either backend is
        exact, for a metric that moves as well.
    :raises ValueError: for two metrics, and for what ``constrained_step`` refuses.
    :raises NonFiniteError: for surrogates whose gradients are not finite.
    """
    if metric is not None and inverse_metric is not None:
        raise ValueError("inverse_metric must be None where metric is given, got both")
    phi, surplus = parameters.detach().clone(), surplus.detach().clone()
    if metric is not None:
        inverse_metric = metric.inverse(phi)
    g, a, costs = (x.detach() for x in surrogate_gradients(loss, phi))
    if surplus.shape != costs.shape:
        raise ValueError(
            f"surplus must have shape {list(costs.shape)}, as loss has it, got {list(surplus.shape)}"
        )
    step = constrained_step(
        g,
        a,
        surplus,
        kl_bound=kl_bound,
        inverse_metric=inverse_metric,
        backend=backend,
        extra_constraints=extra_constraints,
    )
    return InnerStep(
        parameters=phi,
        loss=loss,
        surplus=surplus,
        costs=costs,
        step=step,
        kl_bound=kl_bound,
        inverse_metric=inverse_metric,
        metric=metric,
        backend=backend,
        extra_constraints=extra_constraints,
    )


@checked()
def meta_gradient(
    cotangents: Tensor,
    steps: Sequence[InnerStep],
    *,
    mode: Mode = "exact",
    limit_gradient: LimitGradient = "score",
) -> MetaGradient:
    """Carry cotangents of ``phi^K`` back to ``theta = phi^0``.

    - ``"exact"``: the recursion above.
    - ``"first_order"``: the cotangents themselves; every Jacobian is replaced by the identity.
    - ``"reptile"``: ``theta - phi^K`` in place of the first cotangent, which is the reward's; first-order for
      the constraints.

    :param cotangents: ``[n, P]``; the first is the gradient of the *negative* reward surrogate on the data
        after the adaptation, at ``phi^K``, the others are those of the cost surrogates.
    :param steps: the steps of one adaptation, in their order; not empty.
    :param mode: see above.
    :param limit_gradient: gradient of b, which is a Monte Carlo estimate. ``"score"`` takes that of the cost
        surrogate, which is the policy gradient of ``b = (J_c - limit) / T``; ``"detach"`` takes zero.
    :raises ValueError: for names, shapes and fractions that are not allowed.
    :raises NonFiniteError: if a cotangent or a result has NaN or infinite entries.
    """
    _check(cotangents, steps, mode, limit_gradient)
    cotangents = cotangents.detach()
    cases = Counter("rejected" if x.fraction == 0.0 else x.step.case for x in steps)
    corners = Counter(x.step.corner for x in steps if x.fraction > 0.0 and x.step.corner is not None)
    cosine = cotangents.new_full((len(cotangents),), torch.nan)
    gradients = cotangents.clone()
    if mode == "reptile":
        gradients[0] = steps[0].parameters - steps[-1].adapted
    if mode == "exact":
        for step in reversed(steps):
            if step.fraction > 0.0:
                gradients = gradients + step.fraction * _pulled_back(step, gradients, limit_gradient)
        product = gradients.norm(dim=1) * cotangents.norm(dim=1)
        cosine = torch.where(product > 0.0, (gradients * cotangents).sum(dim=1) / product, torch.nan)
    if not torch.isfinite(gradients).all():
        raise NonFiniteError("the meta-gradient has NaN or infinite entries")
    return MetaGradient(gradients=gradients, cosine=cosine, cases=cases, corners=Counter(corners))


def _pulled_back(step: InnerStep, cotangents: Tensor, limit_gradient: LimitGradient) -> Tensor:
    """Return ``(dx/dphi)^T y`` for each cotangent y, ``[n, P]``."""
    phi = step.parameters.detach().requires_grad_()
    values = surrogate_gradients(step.loss, phi, create_graph=True)
    rows = []
    for y in cotangents:
        bars, moved = step.step.vjp.with_metric(y)
        if limit_gradient == "detach":
            bars = (*bars[:2], torch.zeros_like(bars[2]))
        # A gradient that does not depend on phi (that of a linear surrogate) has nothing to add.
        pairs = [(v, bar.to(v)) for v, bar in zip(values, bars, strict=True) if v.requires_grad]
        if step.metric is not None:
            with torch.enable_grad():
                forms = [step.metric.form(phi, u.to(phi), w.to(phi)) for u, w in moved]
            pairs += [(form, torch.ones_like(form)) for form in forms if form.requires_grad]
        outputs, weights = [v for v, _ in pairs], [bar for _, bar in pairs]
        row = torch.zeros_like(y)
        if pairs:
            row = torch.autograd.grad(outputs, phi, weights, retain_graph=True, materialize_grads=True)[0]
        rows.append(row)
    return torch.stack(rows)


@checked(shapes={"theta": "P"})
@torch.no_grad()
def replay(theta: Tensor, steps: Sequence[InnerStep], *, limit_gradient: LimitGradient = "score") -> Tensor:
    """Take the same steps from other meta-parameters: ``phi^K`` ``[P]``, on the stored data.

    Fractions stay, and so does a metric that does not move; with ``"score"`` the surplus moves with the cost
    surrogates, ``b(phi) = b_k + c(phi) - c(phi^k)``. :func:`meta_gradient` is this function's derivative.

    :param theta: ``[P]``.
    :param steps: the steps of one adaptation.
    """
    phi = theta.detach()
    for step in steps:
        if step.fraction == 0.0:
            continue
        g, a, costs = (x.detach() for x in surrogate_gradients(step.loss, phi))
        surplus = step.surplus
        if limit_gradient == "score":
            surplus = surplus + costs - step.costs
        phi = phi + step.fraction * step.solve_at(phi, g, a, surplus)
    return phi


def _check(cotangents: Tensor, steps: Sequence[InnerStep], mode: str, limit_gradient: str) -> None:
    for name, value, allowed in (("mode", mode, Mode), ("limit_gradient", limit_gradient, LimitGradient)):
        if value not in get_args(allowed):
            raise ValueError(f"{name} must be one of {get_args(allowed)}, got {value!r}")
    if not steps:
        raise ValueError("steps must not be empty")
    size = len(steps[0].parameters)
    if cotangents.dim() != 2 or cotangents.shape[1] != size or len(cotangents) == 0:
        raise ValueError(f"cotangents must be [n, {size}] with n >= 1, got {list(cotangents.shape)}")
    if any(not 0.0 <= x.fraction <= 1.0 for x in steps):
        raise ValueError(f"fractions must be in [0, 1], got {[x.fraction for x in steps]}")
    if not torch.isfinite(cotangents).all():
        raise NonFiniteError("cotangents have NaN or infinite entries")
