"""The minimisers for an E-step that Newton's method does not solve: projected Newton in a box.

Letters and coordinates are those of :mod:`fsrl_ext.functional.estep.problem`. SciPy's general minimisers
spend most of a millisecond on bookkeeping; here a step costs little more than one evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fsrl_ext.functional.estep.newton import KL_TOLERANCE, Answer, gaussian_beta, newton, solve_on_ray
from fsrl_ext.functional.estep.problem import Array, Moments, Problem

Objective = Callable[[Array], tuple[float, Array, Array]]

# No multiplier over temperature is larger than this, in scaled units.
_NU_MAX = 1e9


def least_kl(problem: Problem, levels: Array) -> tuple[Moments, float]:
    """Minimise ``h(nu) = log_partition - nu . levels`` over ``nu >= 0``, without the reward.

    At the minimum ``-h`` is the least KL divergence of any q that meets the costs, and elsewhere it is a
    lower bound of it: the search ends early once that is above twice the KL bound.

    :return: the moments at the last nu, and h.
    """
    count = problem.num_features - 1
    latest: list[Moments] = []

    def objective(nu: Array) -> tuple[float, Array, Array]:
        moments = problem.evaluate(np.concatenate([[0.0], nu]))
        latest[:] = [moments]
        value = moments.log_partition - float(nu @ levels[1:])
        return value, moments.grad[1:] - levels[1:], moments.hess[1:, 1:]

    start = np.full(count, 1e-3 * math.sqrt(problem.kl_bound))
    nu, value = minimise_in_box(
        objective,
        start,
        np.zeros(count),
        np.full(count, _NU_MAX),
        tolerance=1e-11,
        stop=lambda value: -value > 2.0 * problem.kl_bound,
    )
    if not np.array_equal(latest[0].theta[1:], nu):
        objective(nu)
    return latest[0], value


def minimise_dual(problem: Problem, cap: Array) -> Answer:
    """Minimise ``g(eta, lambda)`` over ``eta >= 1/beta_max`` and ``0 <= lambda <= cap``.

    The floor on ``eta`` comes down by factors of ten, and each start is extrapolated from the last two
    minima: close to a linear program (KL budget not used up) ``lambda`` only moves with ``eta``.

    :param cap: ``[K]`` largest multipliers in scaled units; entry 0 is unused.
    """
    bound, levels = problem.kl_bound, problem.levels[1:]
    count = problem.num_features - 1

    def objective(y: Array) -> tuple[float, Array, Array]:
        eta = float(y[0])
        tilt = np.concatenate([[1.0], y[1:]])
        moments = problem.evaluate(tilt / eta)
        value = eta * (bound + moments.log_partition) - float(y[1:] @ levels)
        grad = moments.grad - problem.levels
        grad[0] = bound - moments.kl
        cov = moments.hess @ tilt
        hess = moments.hess / eta
        hess[0, 0] = float(tilt @ cov) / eta**3
        hess[0, 1:] = hess[1:, 0] = -cov[1:] / eta**2
        return value, grad, hess

    upper = np.concatenate([[math.inf], cap[1:]])
    lower = np.zeros(1 + count)
    floor = 1.0 / problem.beta_max
    lower[0] = max(0.1, 0.1 / gaussian_beta(problem))
    y = np.concatenate([[10.0 * lower[0]], np.minimum(0.1, 0.5 * cap[1:])])
    earlier: Array | None = None
    while True:
        # Rounding of lambda moves the weights by 1e-16 / eta, so no gradient is more exact than that.
        tolerance = max(1e-11, 1e-15 / lower[0])
        y, _ = minimise_in_box(objective, y, lower, upper, tolerance=tolerance)
        if y[0] > lower[0] * (1.0 + 1e-9) or lower[0] <= floor:
            break
        lower[0] = max(0.1 * lower[0], floor)
        slope = np.zeros(1 + count) if earlier is None else (earlier - y) / (earlier[0] - y[0])
        earlier = y
        y = np.clip(y + slope * (lower[0] - y[0]), lower, upper)
        y[0] = lower[0]

    theta = np.concatenate([[1.0], y[1:]]) / y[0]
    capped = [m for m in range(1, 1 + count) if y[m] >= cap[m]]
    active = [m for m in range(1, 1 + count) if 1e-9 * y[0] < y[m] < cap[m]]
    at_floor = bool(y[0] <= floor)
    direction = np.zeros(1 + count)
    direction[0] = 1.0
    direction[capped] = cap[capped]
    binding = tuple(sorted(active + capped))
    if not at_floor and not active:
        moments, _ = solve_on_ray(problem, direction, float(theta[0]), problem.beta_max)
        return Answer(moments, True, binding, False)
    answer, _ = newton(problem, direction, theta, active, fixed_beta=at_floor)
    if answer is not None:
        return Answer(answer.moments, True, binding, at_floor)
    return Answer(inside_ball(problem, problem.evaluate(theta)), True, binding, at_floor)


def inside_ball(problem: Problem, moments: Moments) -> Moments:
    """Return ``moments``, or those of a smaller multiple of theta where theta leaves the KL ball."""
    if moments.kl <= problem.kl_bound * (1.0 + KL_TOLERANCE):
        return problem.evaluate(moments.theta)
    return solve_on_ray(problem, moments.theta, 1.0, 1.0)[0]


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
    :param stop: ends the search as soon as it is true of a value of the objective.
    :return: minimiser and value.
    """
    x = np.clip(start, lower, upper)
    value, grad, hess = objective(x)
    for _ in range(max_steps):
        free = ~(((x <= lower) & (grad > 0.0)) | ((x >= upper) & (grad < 0.0)))
        if stop(value) or not free.any() or np.abs(grad[free]).max() <= tolerance:
            break
        for step in _directions(grad, hess, free):
            # No variable grows by more than ten-fold: further away the quadratic model is not reliable.
            reach = (10.0 * np.abs(x) + 1.0) / np.maximum(np.abs(step), 1e-300)
            step *= min(1.0, float(reach.min()))
            accepted = _backtrack(objective, x, step, value, grad, lower, upper)
            if accepted is not None:
                break
        if accepted is None:
            break
        x, value, grad, hess = accepted
    return x, value


def _directions(grad: Array, hess: Array, free: npt.NDArray[np.bool_]) -> Iterator[Array]:
    """Yield Newton's step in the free variables, then scaled gradients in case it does not descend."""
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
    """Return the first of ``x + step, x + step / 2, ..`` (in the box) that decreases the function enough."""
    noise = 1e-15 * (1.0 + abs(value))
    length = 1.0
    for _ in range(50):
        new = np.clip(x + length * step, lower, upper)
        # The temperature, the variable with a positive floor, falls by a factor of ten at most.
        new = np.where((lower > 0.0) & (new < 0.1 * x), np.maximum(0.1 * x, lower), new)
        decrease = float(grad @ (new - x))
        if decrease >= 0.0:
            return None
        trial = objective(new)
        if trial[0] <= value + 1e-4 * decrease - noise:
            return new, *trial
        # Differences of values below rounding decide nothing; the gradients still do.
        if abs(trial[0] - value) <= noise and _norm(new, trial[1], lower, upper) < 0.5 * _norm(
            x, grad, lower, upper
        ):
            return new, *trial
        length *= 0.5
        if length * float(np.abs(step).max()) < 1e-16 * float(np.abs(x).max()):
            return None
    return None


def _norm(x: Array, grad: Array, lower: Array, upper: Array) -> float:
    """Return the largest entry of the projected gradient."""
    return float(np.abs(x - np.clip(x - grad, lower, upper)).max())
