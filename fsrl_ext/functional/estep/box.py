"""Projected Newton for a convex function of a few variables in a box.

General minimisers spend most of a millisecond on bookkeeping; here a step costs one evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fsrl_ext.functional.estep.problem import Array

Objective = Callable[[Array], tuple[float, Array, Array]]


def minimise_in_box(
    objective: Objective,
    start: Array,
    lower: Array,
    upper: Array,
    *,
    tolerance: float,
    stop: Callable[[float], bool] = lambda value: False,
    max_steps: int = 200,
) -> tuple[Array, float]:
    """Minimise a convex function of a few variables in a box by projected Newton.

    :param objective: ``x -> (value, gradient, Hessian)``.
    :param tolerance: on the gradient of the variables that are free to move.
    :param stop: ends the search as soon as it is true of a value.
    :return: minimiser and value.
    """
    x = np.clip(start, lower, upper)
    value, grad, hess = objective(x)
    for _ in range(max_steps):
        free = ~(((x <= lower) & (grad > 0.0)) | ((x >= upper) & (grad < 0.0)))
        if stop(value) or not free.any() or np.abs(grad[free]).max() <= tolerance:
            break
        for step in _directions(grad, hess, free):
            # Ten-fold at most, in all variables alike: the model says little further away.
            reach = (10.0 * np.abs(x) + 1.0) / np.maximum(np.abs(step), 1e-300)
            step *= min(1.0, float(reach.min()))
            found = _backtrack(objective, x, step, value, grad, lower, upper)
            if found is not None:
                break
        if found is None:
            break
        x, value, grad, hess = found
    return x, value


def _directions(grad: Array, hess: Array, free: npt.NDArray[np.bool_]) -> Iterator[Array]:
    """Newton's step in the free variables, then scaled gradients for when it does not descend."""
    index = np.flatnonzero(free)
    block = hess[np.ix_(index, index)]
    diagonal = np.maximum(np.diag(block), 0.0)
    for damping in (1e-13, 1e-6):
        scaled = block + np.diag(damping * diagonal + 1e-13 * damping)
        step = np.zeros_like(grad)
        try:
            step[index] = -np.linalg.solve(scaled, grad[index])
        except np.linalg.LinAlgError:
            continue
        if np.all(np.isfinite(step)) and float(step @ grad) < 0.0:
            yield step
    yield np.where(free, -grad / np.maximum(np.diag(hess), 1e-6), 0.0)
    yield np.where(free, -grad, 0.0)


def _backtrack(
    objective: Objective,
    x: Array,
    step: Array,
    value: float,
    grad: Array,
    lower: Array,
    upper: Array,
) -> tuple[Array, float, Array, Array] | None:
    """First of ``x + step, x + step / 2, ..`` (in the box) that decreases the function enough."""
    noise = 1e-15 * (1.0 + abs(value))
    length = 1.0
    for _ in range(50):
        new = np.clip(x + length * step, lower, upper)
        # The temperature comes down by a factor of ten at most: see minimise_dual.
        new = np.where((lower > 0.0) & (new < 0.1 * x), np.maximum(0.1 * x, lower), new)
        decrease = float(grad @ (new - x))
        if decrease >= 0.0:
            return None
        trial = objective(new)
        if trial[0] <= value + 1e-4 * decrease - noise:
            return new, *trial
        # Below rounding the values say nothing; the gradients still do.
        if abs(trial[0] - value) <= noise and _norm(new, trial[1], lower, upper) < 0.5 * _norm(
            x, grad, lower, upper
        ):
            return new, *trial
        length *= 0.5
        if length * float(np.abs(step).max()) < 1e-16 * float(np.abs(x).max()):
            return None
    return None


def _norm(x: Array, grad: Array, lower: Array, upper: Array) -> float:
    return float(np.abs(x - np.clip(x - grad, lower, upper)).max())
