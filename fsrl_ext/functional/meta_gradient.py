"""Gradients through K constrained steps, by one reverse sweep.

Letters: ``P`` parameters, ``m`` constraints, ``K`` inner steps, ``n`` cotangents. An inner step is::

    phi^{k+1} = phi^k + alpha_k x(g(phi^k), a(phi^k), b(phi^k))

with the constrained step x, its accepted fraction ``alpha_k`` (a constant; 0 for a rejected step), and g and
a the gradients of surrogates on data that stays what it is. For a cotangent ``p_K`` of ``phi^K``::

    p_k = p_{k+1} + alpha_k grad_phi [ g_bar . g(phi^k) + a_bar . a(phi^k) + b_bar b(phi^k) ]

where ``g_bar, a_bar, b_bar`` are what the step's closed-form product answers to ``y = p_{k+1}``: per step
and cotangent one product with ``H^-1`` and one Hessian-vector product, and nothing that is ``P x P``. Where a
step was rejected ``p_k = p_{k+1}``.

A metric that moves with phi, as a Fisher matrix does, adds ``sum_j u_j . H(phi) w_j`` to the bracket, with
the pairs ``(u_j, w_j)`` of the step's derivative in H. That is no detail. Surrogate gradients lie in the
range of the Fisher matrix *at the same phi*; what a frozen ``H^-1`` of another phi finds outside of its own
range, it multiplies by one over the damping.

Sources: Cho and Sun, "Constrained Meta-RL for Adaptable Safety Guarantee with Differentiable Convex
Programming", AAAI 2024 (arXiv 2312.10230), for the meta-gradient through the steps; Finn et al., ICML 2017
(arXiv 1703.03400), section 5.2, for the first-order variant; Nichol et al., 2018 (arXiv 1803.02999), for
Reptile. The sweep is ours; the code published with the first paper builds the Jacobian row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.constrained_step import ConstrainedStep, constrained_step
from fsrl_ext.functional.constrained_step.derivative import StepGradient
from fsrl_ext.functional.trust_region import SurrogateLoss, surrogate_gradients

Mode = Literal["exact", "first_order", "reptile"]
LimitGradient = Literal["score", "detach"]
# (g [P], a [m, P], b [m]) -> step; constrained_step with its settings, or one of convex_layer.
StepSolver = Callable[[Tensor, Tensor, Tensor], ConstrainedStep]


class MovingMetric(Protocol):
    """H as a function of the parameters ``phi [P]``."""

    def inverse(self, phi: Tensor) -> Callable[[Tensor], Tensor]:
        """``z [P] -> H(phi)^-1 z [P]``, without gradient."""

    def form(self, phi: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """``u . H(phi) w`` ``[]`` for ``u, w [P]``, to be differentiated in phi; up to a constant."""


@dataclass(frozen=True, kw_only=True)
class InnerStep:
    """One step of an adaptation, with all that its derivative needs.

    :ivar parameters: ``phi^k`` ``[P]``, before the step.
    :ivar loss: surrogates on the data of this step, ``mean(pi_phi / pi_old A)`` with pi_old a constant:
        ``A log pi_phi`` has the same gradient and another Hessian.
    :ivar surplus: ``b(phi^k)`` ``[m]``.
    :ivar costs: the cost surrogates at ``phi^k`` ``[m]``; kept for :func:`replay`, as is ``solver``.
    :ivar step: answer of the solver at ``phi^k``.
    :ivar solver: what answered.
    :ivar metric: H where it moves with the parameters; ``None`` for one that does not.
    :ivar kl_bound: delta of a step with a metric that moves.
    :ivar fraction: ``alpha_k`` in [0, 1] that the line search accepted; ``dataclasses.replace`` sets it.
    """

    parameters: Tensor
    loss: SurrogateLoss = field(repr=False)
    surplus: Tensor
    costs: Tensor
    step: ConstrainedStep
    solver: StepSolver = field(repr=False)
    metric: MovingMetric | None = field(default=None, repr=False)
    kl_bound: float = 0.0
    fraction: float = 1.0

    @property
    def adapted(self) -> Tensor:
        """``phi^{k+1}`` ``[P]``."""
        if self.fraction == 0.0:
            return self.parameters
        return self.parameters + self.fraction * self.step.step.detach()

    def solver_at(self, phi: Tensor) -> StepSolver:
        """What would answer at other parameters ``[P]``: the solver, with the metric of there."""
        if self.metric is None:
            return self.solver
        return partial(constrained_step, kl_bound=self.kl_bound, inverse_metric=self.metric.inverse(phi))


@dataclass(frozen=True, kw_only=True)
class MetaGradient:
    """Answer of :func:`meta_gradient`.

    :ivar gradients: ``[n, P]`` at ``theta = phi^0``, in the order of the cotangents.
    :ivar cosine: ``[n]`` between first-order and exact gradient; NaN unless the mode is ``"exact"``, and
        where one of them is zero.
    :ivar cases: of the accepted steps, by name, and ``"rejected"``.
    :ivar corners: of the accepted steps, by name: their derivatives lack a singular part.
    """

    gradients: Tensor
    cosine: Tensor
    cases: Counter[str]
    corners: Counter[str]


def inner_step(
    parameters: Tensor,
    loss: SurrogateLoss,
    surplus: Tensor,
    *,
    solver: StepSolver | None = None,
    kl_bound: float | None = None,
    inverse_metric: Callable[[Tensor], Tensor] | None = None,
    metric: MovingMetric | None = None,
) -> InnerStep:
    """Solve one inner step; nothing is changed. The line search is the caller's.

    :param parameters: ``phi^k`` ``[P]``.
    :param loss: see :class:`InnerStep`.
    :param surplus: b ``[m]``, in the unit of the cost surrogates: ``(J_c - limit) / T``.
    :param solver: instead of ``constrained_step`` with the two settings that follow.
    :param kl_bound: delta, in nats.
    :param inverse_metric: a constant ``H^-1``; ``None`` is the identity.
    :param metric: in its place, one that moves with the parameters.
    :raises ValueError: unless one of ``solver`` and ``kl_bound`` is given; for two metrics, and shapes that
        do not fit.
    :raises NonFiniteError: for surrogates whose gradients are not finite.
    """
    if (solver is None) == (kl_bound is None):
        raise ValueError("inner_step needs either solver or kl_bound")
    if metric is not None and inverse_metric is not None:
        raise ValueError("inner_step takes either inverse_metric or metric")
    bound, phi, surplus = float(kl_bound or 0.0), parameters.detach().clone(), surplus.detach().clone()
    if solver is None:
        inverse = inverse_metric if metric is None else metric.inverse(phi)
        solver = partial(constrained_step, kl_bound=bound, inverse_metric=inverse)
    elif inverse_metric is not None or metric is not None:
        raise ValueError("a metric belongs to kl_bound; a solver has its own")
    g, a, costs = (x.detach() for x in surrogate_gradients(loss, phi))
    step = solver(g, a, surplus)
    return InnerStep(
        parameters=phi,
        loss=loss,
        surplus=surplus,
        costs=costs,
        step=step,
        solver=solver,
        metric=metric,
        kl_bound=bound,
    )


def meta_gradient(
    cotangents: Tensor,
    steps: Sequence[InnerStep],
    *,
    mode: Mode = "exact",
    limit_gradient: LimitGradient = "score",
) -> MetaGradient:
    """Carry cotangents of ``phi^K`` back to ``theta = phi^0``.

    - ``"exact"``: the recursion above.
    - ``"first_order"``: the cotangents themselves, every Jacobian taken for the identity.
    - ``"reptile"``: ``theta - phi^K`` for the first cotangent, which is the reward's, whatever its value;
      first-order for the constraints.

    b is a Monte Carlo number. ``"score"`` gives it the gradient of the cost surrogate, which is the policy
    gradient of ``b = (J_c - limit) / T``; ``"detach"`` gives it none.

    :param cotangents: ``[n, P]``; the first is the gradient of the *negative* reward surrogate on the data
        after the adaptation, at ``phi^K``, the others those of the cost surrogates.
    :param steps: in the order in which they were taken; not empty.
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
    """``(dx/dphi)^T y`` for each cotangent y, ``[n, P]``."""
    phi = step.parameters.detach().requires_grad_()
    values = surrogate_gradients(step.loss, phi, create_graph=True)
    rows = []
    for y in cotangents:
        bars, moved = _step_cotangents(step, y)
        if limit_gradient == "detach":
            bars = (*bars[:2], torch.zeros_like(bars[2]))
        # What is linear in phi has a gradient without graph, and nothing to add.
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


def _step_cotangents(
    step: InnerStep, y: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], list[tuple[Tensor, Tensor]]]:
    """Those of g, a and b, and the pairs of a metric that moves."""
    if step.metric is None:
        return step.step.vjp(y), []
    assert isinstance(step.step.vjp, StepGradient), "a metric that moves goes with constrained_step"
    return step.step.vjp.with_metric(y)


def replay(theta: Tensor, steps: Sequence[InnerStep], *, limit_gradient: LimitGradient = "score") -> Tensor:
    """Take the same steps from other meta-parameters: ``phi^K`` ``[P]``, on the stored data.

    Fractions stay, and metrics that do not move; with ``"score"`` the limits move with the cost surrogates,
    ``b(phi) = b_k + c(phi) - c(phi^k)``. It is the function whose derivative :func:`meta_gradient` is. With
    metrics that stay it can be differentiated by autograd if ``theta`` requires gradient, at the price of K
    graphs.

    :param theta: ``[P]``.
    :param steps: of one adaptation.
    :raises ValueError: if it is to be differentiated and a metric moves.
    """
    phi, differentiable = theta, torch.is_grad_enabled() and theta.requires_grad
    for step in steps:
        if step.fraction == 0.0:
            continue
        if differentiable and step.metric is not None:
            raise ValueError("replay cannot be differentiated through a metric that moves")
        g, a, costs = surrogate_gradients(step.loss, phi, create_graph=differentiable)
        surplus = step.surplus
        if limit_gradient == "score":
            surplus = surplus + costs - step.costs
        if not differentiable:
            g, a, surplus = g.detach(), a.detach(), surplus.detach()
        phi = phi + step.fraction * step.solver_at(phi)(g, a, surplus).step
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
