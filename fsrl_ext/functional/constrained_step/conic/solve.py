"""Which conic program a constrained step needs, and what its answer means.

Letters: ``m`` constraints, ``n`` coordinates; everything is in units of the trust region. Feasibility is
decided first, by the closed form for one constraint and by the slack problem otherwise, so that no program is
infeasible when it is solved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fsrl_ext.functional.constrained_step.conic.coordinates import ReducedProblem
from fsrl_ext.functional.constrained_step.conic.program import Answer, ExtraConstraints, Kind, program
from fsrl_ext.functional.constrained_step.problem import Case, Corner

# A slack above this leaves at most a point of the trust region, which makes it a recovery.
_FEASIBLE = -1e-9
# Multipliers, lengths and angles below this are the solver's rounding.
_ROUNDING = 1e-6
# An answer may be this far from its optimality conditions.
_ACCEPTABLE = 1e-6

Posed = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class ReducedStep:
    """A step in unit coordinates.

    :ivar z: ``[n]``, with gradient if ``differentiable``.
    :ivar multiplier_kl: and ``multipliers`` ``[m]``, in the units of g, a and b.
    :ivar differentiable: whether the derivative is handed out; where it is not, it counts as zero.
    """

    z: Tensor
    case: Case
    multiplier_kl: float
    multipliers: Tensor
    corner: Corner | None = None
    differentiable: bool = True


def solve_reduced(at: ReducedProblem, extra: ExtraConstraints | None, corner_tolerance: float) -> ReducedStep:
    """Decide which program a problem needs, solve it and name the case and the corner.

    :raises ArithmeticError: if the solver fails, or misses the optimality conditions.
    """
    blocked = bool(((at.sizes == 0.0) & (at.offsets > 0.0)).any())
    kind, edge = _choose(at, extra, blocked, corner_tolerance)
    if kind is None:
        corner: Corner | None = None if blocked or at.slope > 0.0 else "flat"
        nothing = ReducedStep(torch.zeros_like(at.objective), "degenerate", 0.0, torch.zeros_like(at.sizes))
        return replace(nothing, corner=corner, differentiable=False)
    with torch.enable_grad():
        posed, _ = _posed(kind, at)
        if edge:
            # The feasible set is next to empty, which an interior-point method solves; no derivative exists.
            plain = _plain(kind, at, extra)
            if plain is None:
                raise ArithmeticError("rounding decides whether the problem is feasible")
            z, limits, ball = plain.z, plain.limits, plain.ball
        else:
            z, limits, ball = program(kind, *posed[0].shape, extra).solve(*posed)
        _check(kind, posed, (z, limits, ball), extra)
        step = _judge(kind, at, posed, (z, limits, ball), extra, corner_tolerance)
    if blocked:
        step = replace(step, case="degenerate", corner=None if kind == "shortest" else step.corner)
    if edge:
        return replace(step, corner="edge", differentiable=False)
    # A least violation and a shortest step do not depend on g, unless an extra set does.
    used = at.dependent if kind == "best" or extra is not None else at.dependent[:-1]
    if step.corner is None and bool(used.any()):
        return replace(step, corner="parallel", differentiable=False)
    return step


def _choose(
    at: ReducedProblem, extra: ExtraConstraints | None, blocked: bool, corner_tolerance: float
) -> tuple[Kind | None, bool]:
    """Name the program (``None`` for a step of zero), and say whether its feasible set is next to empty.

    Where a slack of ``-c^2 / 2`` is the best, about c of the trust region's radius is left.
    """
    exceeded = bool(((at.sizes > 0.0) & (at.offsets > 0.0)).any())
    slack, feasible = -1.0, _FEASIBLE
    if extra is None and len(at.offsets) == 1:
        slack, feasible = (float(at.offsets.detach()) if exceeded else 0.0) - 1.0, -1e-15
    elif extra is not None or exceeded:
        least = _plain("least", at, extra)
        if least is None:
            return None, False
        slack = least.value
    if slack > feasible:
        return "least", False
    if not blocked and at.slope > 0.0:
        return "best", slack > -0.5 * corner_tolerance**2
    shortest = _plain("shortest", at, extra) if extra is not None or exceeded else None
    return "shortest" if shortest is not None and shortest.value > _ROUNDING else None, False


def _posed(kind: Kind, at: ReducedProblem) -> tuple[Posed, float]:
    """Return rows, offsets and objective for a program, and by how much the offsets were shifted.

    A row of zeros never binds. Only differences of offsets matter to a least violation, and inside the ball a
    constraint gains at most 2 on another. A problem without constraints gets one that never binds.
    """
    rows, offsets, shift = at.rows, torch.where(at.sizes > 0.0, at.offsets, -2.0), 0.0
    if len(offsets) == 0:
        rows, offsets = at.objective.new_zeros(1, len(at.objective)), at.objective.new_full((1,), -2.0)
    if kind == "least":
        moving = at.sizes > 0.0
        shift = float(offsets[moving].detach().max()) if bool(moving.any()) else 0.0
        offsets = (offsets - shift).clamp(min=-4.0)
    return (rows, offsets, at.objective), shift


def _plain(kind: Kind, at: ReducedProblem, extra: ExtraConstraints | None) -> Answer | None:
    """Solve without gradient, the value shifted back; ``None`` if nothing is feasible."""
    posed, shift = _posed(kind, at)
    answer = program(kind, *posed[0].shape, extra).plain(*posed)
    return None if answer is None else replace(answer, value=answer.value + shift)


def _check(
    kind: Kind, posed: Posed, answer: tuple[Tensor, Tensor, float], extra: ExtraConstraints | None
) -> None:
    """Check optimality; with extra sets, whose multipliers are unknown, feasibility alone."""
    rows, offsets, objective = (x.detach() for x in posed)
    z, limits, ball = answer[0].detach(), answer[1], answer[2]
    misses = [float(z.norm()) - 1.0]
    if kind != "least":
        misses.append(float((rows @ z + offsets).max()))
    if extra is None:
        pull = limits @ rows + (objective if kind == "best" else 0.0)
        length = float(z.norm())
        along = z if kind != "shortest" or length == 0.0 else z / length
        scale = 1.0 + ball + float(limits.sum())
        misses.append(float((pull + ball * along).norm()) / scale)
    if not max(misses) <= _ACCEPTABLE:
        raise ArithmeticError(f"the conic solver's answer misses optimality by {max(misses):.1e}")


def _judge(
    kind: Kind,
    at: ReducedProblem,
    posed: Posed,
    answer: tuple[Tensor, Tensor, float],
    extra: ExtraConstraints | None,
    corner_tolerance: float,
) -> ReducedStep:
    """Name the case and the corner, guard the derivative, and put the multipliers into the caller's units."""
    (rows, _, objective), (z, limits, ball) = posed, answer
    binding, fixed = limits > _ROUNDING, z.detach()
    moves = at.sizes > 0.0
    multipliers = torch.where(moves, limits[: len(moves)] / torch.where(moves, at.sizes, 1.0), 0.0)
    if kind == "shortest":
        return ReducedStep(z, "degenerate", 0.0, torch.zeros_like(multipliers), corner="flat")
    if kind == "least":
        total = float(multipliers.sum())
        step = ReducedStep(z, "recovery", ball / (at.radius * total), multipliers / total)
        if extra is not None or ball * float(fixed.norm()) > max(corner_tolerance, _ROUNDING):
            return step
        if ball <= _ROUNDING:
            step = replace(step, z=_shortest_of_least(posed, fixed), multiplier_kl=0.0)
        return replace(step, corner="contradiction", differentiable=False)
    step = ReducedStep(z, "active", ball * at.slope / at.radius, multipliers * at.slope)
    if extra is not None:
        changed = bool(binding.any()) or float((fixed + objective.detach()).norm()) > _ROUNDING
        return step if changed else replace(step, case="inactive")
    if ball <= _ROUNDING:
        z = _shortest_of_best(posed, fixed)
        return replace(step, z=z, case="degenerate", multiplier_kl=0.0, corner="flat")
    if not binding.any():
        return replace(step, case="inactive")
    if _apart(objective.detach(), rows[binding].detach()) <= corner_tolerance:
        return replace(step, corner="flat", differentiable=False)
    return step


def _apart(vector: Tensor, rows: Tensor) -> float:
    """Return the sine of the angle between a vector and the span of the rows."""
    rest = vector - rows.T @ torch.linalg.lstsq(rows.T, vector[:, None], driver="gelsd").solution.squeeze(1)
    return float(rest.norm() / vector.norm())


def _shortest_of_best(posed: Posed, z: Tensor) -> Tensor:
    """Return the shortest z with the objective of the given one, a function of the rows that hold it."""
    rows, offsets, objective = (x.detach() for x in posed)
    value = float(objective @ z)
    allowed = torch.cat([rows, objective[None]]), torch.cat([offsets, offsets.new_tensor([-value - 1e-9])])
    shortest = program("shortest", *allowed[0].shape, None).plain(*allowed, objective)
    z = z if shortest is None else shortest.z
    held = (rows @ z + offsets).abs() <= _ROUNDING
    return -torch.linalg.pinv(posed[0][held], rtol=1e-9) @ posed[1][held]


def _shortest_of_least(posed: Posed, z: Tensor) -> Tensor:
    """Return the shortest z whose largest violation is that of the given one."""
    rows, offsets, objective = (x.detach() for x in posed)
    level = float((rows @ z + offsets).max())
    shortest = program("shortest", *rows.shape, None).plain(rows, offsets - level - 1e-9, objective)
    return z if shortest is None else shortest.z
