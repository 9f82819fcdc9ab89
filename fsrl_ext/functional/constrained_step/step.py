"""The constrained trust-region step of CPO.

Letters: ``P`` parameters, ``m`` constraints. Over steps ``x [P]``::

    minimise    g . x
    subject to  b_i + a_i . x <= 0    (every constraint i)
                x^T H x / 2 <= delta
                x in the extra convex sets, if there are any

Source: Achiam et al., "Constrained Policy Optimization", ICML 2017 (arXiv 1705.10528), equation 11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsrl_ext.errors import checked
from fsrl_ext.functional.constrained_step.conic import ExtraConstraints, conic_step
from fsrl_ext.functional.constrained_step.exact import exact_step
from fsrl_ext.functional.constrained_step.problem import ConstrainedStep, StepVJP, check_problem

Backend = Literal["exact", "cvxpylayers"]


@checked()
def constrained_step(
    g: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    kl_bound: float,
    inverse_metric: Callable[[Tensor], Tensor] | None = None,
    corner_tolerance: float = 1e-4,
    backend: Backend = "exact",
    extra_constraints: ExtraConstraints | None = None,
) -> ConstrainedStep:
    """Solve the constrained trust-region problem, and say how it ended.

    The step is differentiable, once, in ``g``, ``a`` and ``b``, with H as a constant; a backward pass takes
    one product with ``H^-1``. In and near a corner the singular part of the derivative is left out and
    ``corner`` says so: there is no derivative for ``g`` in a flat case, and none at all where constraints
    contradict each other inside the trust region.

    ``a`` and ``b`` must share a unit: the gradient of the mean over *steps* of ratio times cost advantage
    goes with ``b = (J_c - limit) / T`` for an undiscounted episode cost of T steps.

    :param g: ``[P]`` gradient of the *negative* reward surrogate.
    :param a: ``[m, P]`` gradients of the cost surrogates; ``m = 0`` is the step of TRPO.
    :param b: ``[m]`` by how much each constraint is exceeded; ``-inf`` turns one off.
    :param kl_bound: delta, in nats.
    :param inverse_metric: ``z [P] -> H^-1 z [P]``, symmetric positive definite, called at most ``m + 1``
        times; ``None`` is the identity. An approximate one (conjugate gradient) leaves the predicted
        objective and constraints exact and makes the KL bound approximate.
    :param corner_tolerance: in [0, 1): sine of the angle, in the metric, below which two directions count
        as parallel in the derivative. What is left grows like its inverse. The step does not depend on it.
    :param backend: ``"exact"`` is the closed form. ``"cvxpylayers"`` hands the same problem, reduced to
        ``m + 1`` variables, to a conic solver: it takes extra convex sets, is right to about 1e-8 (less
        for gradients within 1e-4 of parallel) and takes some milliseconds instead of a fraction of one. Near
        a corner its whole derivative is zero.
    :param extra_constraints: further convex sets for ``"cvxpylayers"``: a function from the
        :class:`~fsrl_ext.functional.constrained_step.StepExpressions` to a list of cvxpy constraints on them,
        convex and DPP, such as ``lambda step: [cvxpy.norm_inf(step.coordinates) <= 0.5]``. The sets hold
        in a recovery too. A program is compiled once per function: hand over the same object every time.
    :raises ValueError: for shapes, a bound, a tolerance or a backend that are not allowed, for extra
        constraints with ``"exact"``, and for a metric that is found not to be positive definite.
    :raises NonFiniteError: for NaN or infinite entries (save ``b = -inf``), and if the metric gives some.
    :raises ArithmeticError: if rounding leaves no acceptable answer (not known to happen with ``"exact"``),
        or if the conic solver fails or misses the optimality conditions by more than 1e-6.
    """
    check_problem(g, a, b, kl_bound, corner_tolerance)
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {get_args(Backend)}, got {backend!r}")
    if backend == "exact" and extra_constraints is not None:
        raise ValueError(
            "extra_constraints must be None with backend='exact' ('cvxpylayers' takes them), "
            f"got {extra_constraints!r}"
        )
    settings: dict[str, Any] = {
        "kl_bound": kl_bound,
        "inverse_metric": inverse_metric,
        "corner_tolerance": corner_tolerance,
    }
    if backend == "exact":
        answer = exact_step(g, a, b, **settings)
    else:
        answer = conic_step(g, a, b, extra_constraints=extra_constraints, **settings)
    if torch.is_grad_enabled() and (g.requires_grad or a.requires_grad or b.requires_grad):
        answer = replace(answer, step=_StepFunction.apply(g, a, b, answer.step, answer.vjp))
    return answer


class _StepFunction(torch.autograd.Function):
    """Hands a step on, with the gradient that its vector-Jacobian product gives for g, a and b."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, a: Tensor, b: Tensor, step: Tensor, vjp: StepVJP) -> Tensor:
        ctx.vjp, ctx.dtypes = vjp, (g.dtype, a.dtype, b.dtype)
        return step.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, ...]:
        bars = ctx.vjp(y)
        return (*(bar.to(dtype) for bar, dtype in zip(bars, ctx.dtypes, strict=True)), None, None)
