"""The constrained step's small problems: a linear or minimax objective in the unit ball.

Letters: ``m`` constraints, ``n <= m + 1`` coordinates. Rows ``[m, n]`` have unit length, a constraint is
``offset_i + row_i . x <= 0`` and the trust region is ``|x| <= 1``, so every quantity is dimensionless.

Each problem is of LP type: its optimum is fixed by a few binding constraints, and a constraint that is
violated by the optimum over some other constraints binds once it is added. The search adds the worst
constraint and tries it with every subset of the constraints that were binding, each by a closed formula; one
constraint needs one formula.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# A constraint counts as met below this excess (in units of its largest effect inside the ball).
FEASIBILITY = 1e-13
# Singular values of the binding rows below this are rounding.
_RANK = 1e-12
# The part of a unit gradient that the binding rows leave counts as zero below this length.
_FLAT = 1e-10
# An answer further from its optimality conditions is refused: the constraints contradict each other.
_ACCEPTABLE = 1e-8


@dataclass(frozen=True)
class Point:
    """A candidate with its multipliers: ``gradient + ball * x + rows^T multipliers = 0``.

    :ivar x: ``[n]``.
    :ivar binding: constraints that hold with equality.
    :ivar multipliers: one per binding constraint; negative ones show that a candidate is not optimal.
    :ivar ball: multiplier of ``|x|^2 / 2 <= 1 / 2``.
    :ivar level: value that the binding constraints share; 0 except in :func:`least_violation`.
    """

    x: Array
    binding: tuple[int, ...]
    multipliers: Array
    ball: float
    level: float = 0.0


class _Factors:
    """Singular value decomposition of the binding rows."""

    def __init__(self, rows: Array) -> None:
        u, values, v = np.linalg.svd(rows, full_matrices=False)
        rank = int((values > _RANK).sum())
        self.u, self.values, self.v = u[:, :rank], values[:rank], v[:rank]

    def shortest(self, right: Array) -> Array:
        """Return the shortest x with ``rows x = right``, in the least-squares sense."""
        x: Array = self.v.T @ ((self.u.T @ right) / self.values)
        return x

    def combination(self, vector: Array) -> Array:
        """Return the shortest nu with ``rows^T nu = vector``, in the least-squares sense."""
        nu: Array = self.u @ ((self.v @ vector) / self.values)
        return nu

    def remainder(self, vector: Array) -> Array:
        """Return the part of ``vector`` orthogonal to every row; projected twice against rounding."""
        for _ in range(2):
            vector = vector - self.v.T @ (self.v @ vector)
        return vector


def shortest_feasible(rows: Array, offsets: Array) -> Point | None:
    """Return the shortest x that meets all constraints; ``None`` if none inside the unit ball does."""

    def candidate(binding: tuple[int, ...]) -> Point | None:
        factors = _Factors(rows[list(binding)])
        x = factors.shortest(-offsets[list(binding)])
        if float(x @ x) >= 1.0:
            return None
        return Point(x, binding, -factors.combination(x), 1.0)

    origin = Point(np.zeros(rows.shape[1]), (), np.zeros(0), 1.0)
    return _search(rows, offsets, candidate, origin)


def best_feasible(gradient: Array, rows: Array, offsets: Array) -> Point | None:
    """Minimise ``gradient . x`` under all constraints in the unit ball; some point must meet them.

    Where the binding constraints leave nothing of the gradient, the answer is the shortest optimum, with
    ``ball = 0``. ``None`` if rounding leaves no acceptable answer.

    :param gradient: ``[n]``, unit length.
    """

    def candidate(binding: tuple[int, ...]) -> Point | None:
        return _on_face(gradient, rows[list(binding)], offsets[list(binding)], binding)

    free = Point(-gradient, (), np.zeros(0), 1.0)
    return _search(rows, offsets, candidate, free)


def least_violation(rows: Array, offsets: Array) -> Point | None:
    """Minimise ``max_i (offset_i + row_i . x)`` in the unit ball; the answer is the shortest minimiser.

    The multipliers sum to 1 and the gradient is zero; ``level`` is the value. ``ball`` is 0 where the rows
    contradict each other inside the ball. ``None`` if rounding leaves no acceptable answer.
    """
    # Only differences matter, and inside the ball a constraint gains at most 2 on another.
    highest = float(offsets.max())
    offsets = np.maximum(offsets - highest, -4.0)

    def candidate(binding: tuple[int, ...]) -> Point | None:
        # Minimise the first constraint where the others equal it.
        first, others = binding[0], list(binding[1:])
        rises, lead = rows[others] - rows[first], offsets[others] - offsets[first]
        unit = np.maximum(np.linalg.norm(rises, axis=1), np.finfo(np.float64).tiny)
        face = _on_face(rows[first], rises / unit[:, None], lead / unit, binding)
        if face is None:
            return None
        weights = face.multipliers / unit
        multipliers = np.append(1.0 - weights.sum(), weights)
        return replace(face, multipliers=multipliers, level=float(offsets[first] + rows[first] @ face.x))

    start = candidate((int(np.argmax(offsets)),))
    point = None if start is None else _search(rows, offsets, candidate, start)
    return None if point is None else replace(point, level=point.level + highest)


def _on_face(gradient: Array, rows: Array, offsets: Array, binding: tuple[int, ...]) -> Point | None:
    """Minimise ``gradient . x`` in the ball where ``offsets + rows x = 0``; ``None`` if that is empty."""
    factors = _Factors(rows)
    x = factors.shortest(-offsets)
    room = 1.0 - float(x @ x)
    if room <= 0.0:
        return None
    slope = factors.remainder(gradient)
    length, ball = float(np.linalg.norm(slope)), 0.0
    if length > _FLAT:
        ball = length / math.sqrt(room)
        x = x - slope / ball
    return Point(x, binding, -factors.combination(gradient + ball * x), ball)


def _search(
    rows: Array, offsets: Array, candidate: Callable[[tuple[int, ...]], Point | None], start: Point
) -> Point | None:
    """Go from the optimum over none (or one) of the constraints to that over all; ``None`` without one."""
    point, seen = start, {frozenset(start.binding)}
    while len(rows):
        excess = rows @ point.x + offsets - point.level
        worst = int(np.argmax(excess))
        if excess[worst] <= FEASIBILITY:
            return point
        held = [*point.binding, worst]
        subsets = (
            (*kept, worst)
            for size in range(len(point.binding) + 1)
            for kept in itertools.combinations(point.binding, size)
        )
        trials = [trial for subset in subsets if (trial := candidate(subset)) is not None]
        scored = [(_defect(trial, rows[held], offsets[held]), k) for k, trial in enumerate(trials)]
        defect, best = min(scored, default=(math.inf, 0))
        # A set of constraints comes up twice only where rounding decides whether they are met.
        if worst in point.binding or (scored and frozenset(trials[best].binding) in seen):
            return point if excess[worst] <= _ACCEPTABLE else None
        if defect > _ACCEPTABLE:
            return None
        point = trials[best]
        seen.add(frozenset(point.binding))
    return point


def _defect(point: Point, rows: Array, offsets: Array) -> float:
    """Measure how far a candidate is from being optimal for these constraints."""
    violation = float((rows @ point.x + offsets).max()) - point.level
    length = float(np.linalg.norm(point.x)) - 1.0
    negative = -float(point.multipliers.min()) / (1.0 + float(np.abs(point.multipliers).max()))
    return max(violation, length, negative, 0.0)
