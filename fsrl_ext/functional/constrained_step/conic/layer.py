"""The constrained step through cvxpylayers: a reference, and steps in further convex sets.

Letters: ``N`` items, ``P`` parameters, ``m`` constraints. The problem, the cases and the answer are those of
:func:`fsrl_ext.functional.constrained_step.constrained_step`, which is exact and needs no solver;
this is for what it does not know:

- :func:`convex_step` and :func:`convex_steps` solve the *reduced* problem of ``m + 1`` variables, with any
  further convex sets in those variables. What such a set says depends on x only through ``a_i . x``,
  ``g . x`` and ``x^T H x``, so the reduced optimum is that over all P parameters. A linear limit
  on the parameters themselves (``r . x + h <= 0``) is one more row of ``a`` and ``b``.
- :func:`full_convex_step` solves in all P parameters and shares no shortcut with the others: it is what they
  are tested against.

Whether an item is feasible is decided before it is solved, by the closed form for one constraint and by a
slack problem otherwise; infeasible ones take a step of least violation, and none of them fails the others.

Sources: Achiam et al., ICML 2017 (arXiv 1705.10528), equation 11; Cho and Sun, AAAI 2024 (arXiv 2312.10230),
for the differentiable program; the reduction to ``m + 1`` variables is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fsrl_ext.functional.constrained_step.conic.coordinates import (
    Coordinates,
    full_coordinates,
    reduced_coordinates,
)
from fsrl_ext.functional.constrained_step.conic.items import Found, Item, decide, solve
from fsrl_ext.functional.constrained_step.conic.program import ConvexSets, StepExpressions
from fsrl_ext.functional.constrained_step.derivative import StepFunction
from fsrl_ext.functional.constrained_step.step import ConstrainedStep, check_problem

__all__ = ["ConvexSets", "StepExpressions", "convex_step", "convex_steps", "full_convex_step"]

InverseMetric = Callable[[Tensor], Tensor]
Triple = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class _Problem:
    """``given`` are the caller's g, a and b, ``leaves`` their float64 copies, which carry the gradient."""

    given: Triple
    leaves: Triple
    radius: float
    item: Item


def convex_step(
    g: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    kl_bound: float,
    inverse_metric: InverseMetric | None = None,
    sets: ConvexSets | None = None,
    corner_tolerance: float = 1e-4,
    tolerance: float = 1e-11,
) -> ConstrainedStep:
    """:func:`convex_steps` for one item: ``g [P]``, ``a [m, P]``, ``b [m]``."""
    settings = {"kl_bound": kl_bound, "corner_tolerance": corner_tolerance, "tolerance": tolerance}
    return convex_steps([g], [a], [b], inverse_metrics=[inverse_metric], sets=sets, **settings)[0]


def convex_steps(
    g: Tensor | Sequence[Tensor],
    a: Tensor | Sequence[Tensor],
    b: Tensor | Sequence[Tensor],
    *,
    kl_bound: float,
    inverse_metrics: Sequence[InverseMetric | None] | None = None,
    sets: ConvexSets | None = None,
    corner_tolerance: float = 1e-4,
    tolerance: float = 1e-11,
) -> list[ConstrainedStep]:
    """Constrained steps of several items, on the reduced problem, in one call of the solver per kind.

    The answers are those of ``constrained_step``, and differentiable like them. With ``sets``, the step is
    the best one inside them as well; they hold in a recovery too. An item whose sets leave nothing of the
    trust region gets the case ``"degenerate"`` and a zero step. Multipliers of the sets are not reported, and
    flat corners and contradictions are not looked for. Near a corner the whole derivative is zero, save that
    a step that is flat to rounding keeps that of a shortest one.

    :param g: ``[N, P]``, ``a`` ``[N, m, P]``, ``b`` ``[N, m]``, as there.
    :param kl_bound: delta, in nats.
    :param inverse_metrics: N products with ``H^-1``; ``None`` is the identity.
    :param sets: from the :class:`StepExpressions` to cvxpy constraints on them, convex and DPP, such as
        ``lambda step: [cvxpy.norm_inf(step.coordinates) <= 0.5]``. A program is compiled once per function:
        hand over the same object every time.
    :param corner_tolerance: as there; 0 hands out the solver's derivative, not to be trusted near a corner.
    :param tolerance: of the solver, for a problem in units of 1.
    :raises ValueError: for shapes and values that are not allowed, and a metric that is not positive
        definite.
    :raises NonFiniteError: for NaN or infinite entries (save ``b = -inf``).
    :raises ArithmeticError: if the solver misses the optimality conditions by 1e-6.
    :raises diffcp.SolverError: if it does not answer.
    """
    if not len(g) == len(a) == len(b):
        raise ValueError(f"g, a and b must have one entry per item, got {len(g)}, {len(a)} and {len(b)}")
    metrics = [None] * len(g) if inverse_metrics is None else list(inverse_metrics)
    if len(metrics) != len(g):
        raise ValueError(f"inverse_metrics must have {len(g)} entries like g, got {len(metrics)}")
    _check_tolerances(corner_tolerance, tolerance)
    radius = math.sqrt(2.0 * kl_bound) if kl_bound > 0.0 else math.nan
    problems = []
    for metric, *given in zip(metrics, g, a, b, strict=True):
        one: Triple = given[0], given[1], given[2]
        check_problem(*one, kl_bound)
        leaves = _leaves(*one)
        with torch.enable_grad():
            at = reduced_coordinates(*leaves, radius, metric)
        problems.append(_Problem(one, leaves, radius, decide(at, sets, corner_tolerance)))
    found = solve([x.item for x in problems], sets, corner_tolerance, tolerance)
    return [_answer(x, z) for x, z in zip(problems, found, strict=True)]


def full_convex_step(
    g: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    kl_bound: float,
    metric_root: Tensor | None = None,
    corner_tolerance: float = 1e-4,
    tolerance: float = 1e-11,
) -> ConstrainedStep:
    """The constrained step as a program in all P parameters: the reference.

    The metric stays outside the program, which only gets vectors: it is solved for ``R^T x``.

    :param metric_root: R ``[P, P]``, lower triangular, ``H = R R^T``; a constant. ``None`` is the identity.
    """
    check_problem(g, a, b, kl_bound)
    _check_tolerances(corner_tolerance, tolerance)
    if metric_root is not None and metric_root.shape != (len(g), len(g)):
        raise ValueError(f"metric_root must be [{len(g)}, {len(g)}], got {list(metric_root.shape)}")
    leaves, radius = _leaves(g, a, b), math.sqrt(2.0 * kl_bound)
    root = None if metric_root is None else metric_root.detach().double().cpu()
    with torch.enable_grad():
        at = full_coordinates(*leaves, radius, root)
    problem = _Problem((g, a, b), leaves, radius, decide(at, None, corner_tolerance))
    return _answer(problem, solve([problem.item], None, corner_tolerance, tolerance)[0])


def _check_tolerances(corner_tolerance: float, tolerance: float) -> None:
    if not 0.0 <= corner_tolerance < 1.0:
        raise ValueError(f"corner_tolerance must be in [0, 1), got {corner_tolerance}")
    if not 0.0 < tolerance < 1e-3:
        raise ValueError(f"tolerance must be in (0, 1e-3), got {tolerance}")


def _leaves(g: Tensor, a: Tensor, b: Tensor) -> Triple:
    first, second, third = (x.detach().double().cpu().clone().requires_grad_() for x in (g, a, b))
    return first, second, third


def _answer(problem: _Problem, found: Found) -> ConstrainedStep:
    """The step of one item, wired to the tensors that the caller handed over."""
    (g, a, b), leaves, radius = problem.given, problem.leaves, problem.radius
    at = problem.item.at
    with torch.enable_grad():
        graph = at.lift(found.z)

    def vjp(y: Tensor) -> Triple:
        bars: Sequence[Tensor] = [torch.zeros_like(x) for x in leaves]
        if found.differentiable:
            cotangent = y.detach().double().cpu()
            bars = torch.autograd.grad(graph, leaves, cotangent, retain_graph=True, materialize_grads=True)
        return bars[0].to(y.device), bars[1].to(y.device), bars[2].to(y.device)

    x = graph.detach()
    step = x.to(g)
    if torch.is_grad_enabled() and any(t.requires_grad for t in problem.given):
        step = StepFunction.apply(g, a, b, step, vjp)
    multipliers, ball = _physical(found, at, radius)
    constraint = leaves[2].detach() + leaves[1].detach() @ x
    return ConstrainedStep(
        step=step,
        case=found.case,
        multiplier_kl=ball,
        multipliers=multipliers.to(g.device),
        predicted_objective=float(leaves[0].detach() @ x),
        predicted_constraint=constraint.to(g.device),
        predicted_kl=float(0.5 * radius**2 * (found.z.detach() @ found.z.detach())),
        corner=found.corner,
        vjp=vjp,
    )


def _physical(found: Found, at: Coordinates, radius: float) -> tuple[Tensor, float]:
    """Multipliers of the constraints ``[m]`` and of the KL bound, in the units of g, a and b."""
    moves = at.sizes > 0.0
    multipliers = torch.where(moves, found.multipliers / torch.where(moves, at.sizes, 1.0), 0.0)
    if found.kind == "best":
        return multipliers * at.slope, found.ball * at.slope / radius
    if found.kind == "least":
        total = float(multipliers.sum())
        return multipliers / total, found.ball / (radius * total)
    return torch.zeros_like(multipliers), 0.0
