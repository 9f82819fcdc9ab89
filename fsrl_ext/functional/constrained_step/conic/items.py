"""What a conic solver is asked about each item of a batch, and what its answers mean.

Letters: ``m`` constraints, ``n`` coordinates; everything is in units of the trust region. Feasibility is
decided first, so that no program is infeasible when it is solved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fsrl_ext.functional.constrained_step.conic.coordinates import Coordinates
from fsrl_ext.functional.constrained_step.conic.program import ConvexSets, Kind, Plain, program
from fsrl_ext.functional.constrained_step.derivative import Corner
from fsrl_ext.functional.constrained_step.step import Case

# A slack above this leaves at most a point of the trust region: recovery.
_FEASIBLE = -1e-9
# Multipliers, lengths and angles below this are the solver's rounding.
_ROUNDING = 1e-6
# How far an answer may be from its optimality conditions.
_ACCEPTABLE = 1e-6


@dataclass(frozen=True)
class Item:
    """A problem and what there is to solve; ``kind`` is ``None`` for a step of zero.

    :ivar blocked: whether a constraint without gradient is violated.
    :ivar edge: whether the constraints leave next to nothing of the trust region.
    """

    at: Coordinates
    kind: Kind | None
    blocked: bool = False
    edge: bool = False


@dataclass(frozen=True)
class Found:
    """The answer for one item.

    :ivar z: ``[n]``, with gradient if ``differentiable``.
    :ivar kind: what was solved.
    :ivar multipliers: of unit rows ``[m]``, ``ball`` that of the trust region.
    """

    z: Tensor
    kind: Kind | None
    case: Case
    multipliers: Tensor
    ball: float
    corner: Corner | None = None
    differentiable: bool = True


def decide(at: Coordinates, sets: ConvexSets | None, corner_tolerance: float) -> Item:
    """Feasible or not: by the closed form for one constraint, by the slack problem for more.

    Where a slack of ``-c^2 / 2`` is the best, about c of the trust region's radius is left.
    """
    moves, offsets = at.sizes > 0.0, at.offsets.detach()
    blocked = bool((~moves & (offsets > 0.0)).any())
    exceeded = bool((moves & (offsets > 0.0)).any())
    if sets is None and not exceeded:
        slack = -1.0
    elif sets is None and len(offsets) == 1:
        slack = float(offsets) - 1.0
    else:
        answer = _plain("least", at, sets)
        if answer is None:
            return Item(at, None, blocked)
        slack = answer[0]
    if slack > (_FEASIBLE if len(offsets) > 1 or sets is not None else -1e-15):
        return Item(at, "least", blocked)
    if not blocked and at.slope > 0.0:
        return Item(at, "best", edge=slack > -0.5 * corner_tolerance**2)
    shortest = _plain("shortest", at, sets) if sets is not None or exceeded else None
    return Item(at, "shortest" if shortest is not None and shortest[0] > _ROUNDING else None, blocked)


def solve(
    items: Sequence[Item], sets: ConvexSets | None, corner_tolerance: float, tolerance: float
) -> list[Found]:
    """All items, those with the same program together."""
    groups: dict[tuple[Kind, int, int], list[int]] = {}
    found: dict[int, Found] = {}
    for index, item in enumerate(items):
        if item.kind is None:
            corner: Corner | None = None if item.blocked or item.at.slope > 0.0 else "flat"
            zero = torch.zeros_like(item.at.objective)
            none = torch.zeros_like(item.at.sizes)
            found[index] = Found(zero, None, "degenerate", none, 0.0, corner, differentiable=False)
            continue
        if item.edge:
            found[index] = _on_the_edge(index, item, sets)
            continue
        m, n = item.at.rows.shape
        groups.setdefault((item.kind, m, n), []).append(index)
    for (kind, m, n), indices in groups.items():
        with torch.enable_grad():
            parts = [_posed(kind, items[k].at)[:3] for k in indices]
            rows, offsets, objective = (torch.stack(x) for x in zip(*parts, strict=True))
            z, limits, ball = program(kind, max(m, 1), n, sets)(rows, offsets, objective, tolerance)
        for k, index in enumerate(indices):
            answer = (z[k], limits[k], float(ball[k]))
            _check(index, kind, parts[k], answer, sets)
            with torch.enable_grad():
                found[index] = _judge(items[index], parts[k], answer, sets, corner_tolerance)
    return [found[index] for index in range(len(items))]


def _posed(kind: Kind, at: Coordinates) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rows, offsets and objective for a program, and by how much the offsets were shifted.

    Rows that do not move never bind. Only differences of offsets matter to a least violation, and nobody
    catches up on more than the ball's diameter. Without constraints there is one that never binds.
    """
    rows, offsets, shift = at.rows, torch.where(at.sizes > 0.0, at.offsets, -2.0), 0.0
    if len(offsets) == 0:
        rows, offsets = at.objective.new_zeros(1, len(at.objective)), at.objective.new_full((1,), -2.0)
    if kind == "least":
        moving = at.sizes > 0.0
        shift = float(offsets[moving].detach().max()) if bool(moving.any()) else 0.0
        offsets = (offsets - shift).clamp(min=-4.0)
    return rows, offsets, at.objective, shift


def _plain(kind: Kind, at: Coordinates, sets: ConvexSets | None) -> tuple[float, Plain] | None:
    """Optimal value, shifted back, and answer without gradient; ``None`` if nothing is feasible."""
    rows, offsets, objective, shift = _posed(kind, at)
    given = (x.detach() for x in (rows, offsets, objective))
    answer = program(kind, *rows.shape, sets).plain(*given)
    return None if answer is None else (answer.value + shift, answer)


def _on_the_edge(index: int, item: Item, sets: ConvexSets | None) -> Found:
    """The best step in next to nothing: by an interior-point method, and without derivative."""
    answer = _plain("best", item.at, sets)
    if answer is None:
        raise ArithmeticError(f"rounding decides whether item {index} is feasible")
    plain, posed = answer[1], _posed("best", item.at)[:3]
    _check(index, "best", posed, (plain.z, plain.limits, plain.ball), sets)
    multipliers = plain.limits[: len(item.at.sizes)]
    return Found(plain.z, "best", "active", multipliers, plain.ball, "edge", differentiable=False)


def _check(
    index: int,
    kind: Kind,
    posed: tuple[Tensor, ...],
    answer: tuple[Tensor, Tensor, float],
    sets: ConvexSets | None,
) -> None:
    """Optimality conditions; with further sets, whose multipliers are unknown, only those of feasibility."""
    rows, offsets, objective = (x.detach() for x in posed)
    z, limits, ball = answer[0].detach(), answer[1], answer[2]
    misses = [float(z.norm()) - 1.0]
    if kind != "least":
        misses.append(float((rows @ z + offsets).max()))
    if sets is None:
        pull = limits @ rows + (objective if kind == "best" else 0.0)
        length = float(z.norm())
        along = z if kind != "shortest" or length == 0.0 else z / length
        scale = 1.0 + ball + float(limits.sum())
        misses.append(float((pull + ball * along).norm()) / scale)
    if not max(misses) <= _ACCEPTABLE:
        raise ArithmeticError(f"the solver's answer for item {index} misses optimality by {max(misses):.1e}")


def _judge(
    item: Item,
    posed: tuple[Tensor, ...],
    answer: tuple[Tensor, Tensor, float],
    sets: ConvexSets | None,
    corner_tolerance: float,
) -> Found:
    """Names the case and the corner, and guards the derivative."""
    (rows, offsets, objective), (z, limits, ball), kind = posed, answer, item.kind
    fixed, multipliers = z.detach(), limits[: len(item.at.sizes)]
    binding = limits > _ROUNDING
    if kind == "shortest":
        flat: Corner | None = None if item.blocked else "flat"
        return Found(z, kind, "degenerate", torch.zeros_like(multipliers), 0.0, flat)
    if kind == "least":
        case: Case = "degenerate" if item.blocked else "recovery"
        opposed = sets is None and ball * float(fixed.norm()) <= max(corner_tolerance, _ROUNDING)
        if opposed and ball <= _ROUNDING:
            fixed, ball = _shortest_of_least(rows, offsets, fixed), 0.0
        if opposed:
            return Found(fixed, kind, case, multipliers, ball, "contradiction", differentiable=False)
        return Found(z, kind, case, multipliers, ball)
    if sets is not None:
        changed = bool(binding.any()) or float((fixed + objective.detach()).norm()) > _ROUNDING
        return Found(z, kind, "active" if changed else "inactive", multipliers, ball)
    if ball <= _ROUNDING:
        z = -torch.linalg.pinv(rows[binding]) @ offsets[binding]
        return Found(z, kind, "degenerate", multipliers, 0.0, "flat")
    case = "active" if bool(binding.any()) else "inactive"
    held = rows[binding].detach()
    if case == "active" and _apart(objective.detach(), held) <= corner_tolerance:
        return Found(fixed, kind, case, multipliers, ball, "flat", differentiable=False)
    return Found(z, kind, case, multipliers, ball)


def _apart(vector: Tensor, rows: Tensor) -> float:
    """Sine of the angle between a vector and the span of the rows."""
    rest = vector - rows.T @ torch.linalg.lstsq(rows.T, vector[:, None], driver="gelsd").solution.squeeze(1)
    return float(rest.norm() / vector.norm())


def _shortest_of_least(rows: Tensor, offsets: Tensor, z: Tensor) -> Tensor:
    """The shortest z with the largest violation that the given one has."""
    level = float((rows.detach() @ z + offsets.detach()).max())
    given = (rows.detach(), offsets.detach() - level - 1e-9, torch.zeros_like(z))
    shortest = program("shortest", *rows.shape, None).plain(*given)
    return z if shortest is None else shortest.z
