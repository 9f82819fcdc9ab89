"""The E-step's optimum in every case: Newton where it works, a path that cannot fail elsewhere.

Letters and coordinates are those of :mod:`fsrl_ext.functional.estep.problem`. In order:

1. guess the case from the moments at uniform weights, and try Newton there;
2. otherwise decide feasibility: the least KL divergence of any q that meets the costs;
3. feasible: minimise the dual by projected Newton; infeasible: minimise the largest violation.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fsrl_ext.functional.estep.box import minimise_in_box
from fsrl_ext.functional.estep.newton import (
    COST_TOLERANCE,
    KL_TOLERANCE,
    Answer,
    gaussian_beta,
    guess,
    least_cost,
    least_violation_newton,
    newton,
    newton_with_set_changes,
    reward_only,
)
from fsrl_ext.functional.estep.problem import Array, Moments, Problem, solve_on_ray

_NU_MAX = 1e9


def solve(problem: Problem, start: Array | None = None) -> Answer:
    """Optimum of ``problem``; ``start`` is the theta of a similar problem with a feasible point."""
    if start is None:
        feasible, theta, active = guess(problem)
        if not feasible:
            one_cost = problem.num_features == 2
            answer = least_cost(problem) if one_cost else least_violation_newton(problem)
            if answer is not None:
                return answer
    else:
        theta, active = start, [int(m) for m in np.flatnonzero(start[1:] > 0.0) + 1]
    return solve_feasible(problem, theta, active) or least_violation(problem)


def solve_feasible(problem: Problem, theta: Array, active: list[int]) -> Answer | None:
    """Optimum of ``problem``, ``None`` if no q in the KL ball meets the costs.

    :param theta, active: a guess of the optimum and of the costs that bind there.
    """
    answer = reward_only(problem, float(theta[0])) if not active else None
    answer = answer or newton_with_set_changes(problem, theta, active)
    if answer is None and active:
        answer = reward_only(problem, gaussian_beta(problem))
    if answer is not None:
        return answer
    if problem.num_features == 2:
        feasible = least_cost(problem) is None
    else:
        _, value = least_kl(problem, problem.levels - COST_TOLERANCE)
        feasible = -value <= problem.kl_bound
    return minimise_dual(problem, np.full(problem.num_features, math.inf)) if feasible else None


def solve_flat(problem: Problem) -> Answer:
    """The weights closest to uniform that meet the costs, for a reward that is constant."""
    if np.all(problem.levels[1:] <= 0.0):
        return Answer(problem.evaluate(np.zeros(problem.num_features)), True)
    for levels in (problem.levels, problem.levels - COST_TOLERANCE):
        moments, value = least_kl(problem, levels)
        if -value <= problem.kl_bound:
            return Answer(_inside_ball(problem, moments), True)
    return least_violation(problem)


def least_kl(problem: Problem, levels: Array, nu: Array | None = None) -> tuple[Moments, float]:
    """Minimise ``h(nu) = log_partition - nu . levels`` over ``nu >= 0``, reward left out.

    ``-h`` is the least KL divergence of any q that meets the costs, and every ``nu`` bounds it
    from below: the search ends early once the bound is above twice the KL bound.
    """
    count = problem.num_features - 1
    latest: list[Moments] = []

    def objective(nu: Array) -> tuple[float, Array, Array]:
        moments = problem.evaluate(np.concatenate([[0.0], nu]))
        latest[:] = [moments]
        value = moments.log_partition - float(nu @ levels[1:])
        return value, moments.grad[1:] - levels[1:], moments.hess[1:, 1:]

    start = np.full(count, 1e-3 * math.sqrt(problem.kl_bound)) if nu is None else nu
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


def least_violation(problem: Problem) -> Answer:
    """Minimise the largest violation inside the KL ball, one cost after another as the largest.

    With ``v_m`` the violations, ``min max_m v_m`` has some largest cost j: it minimises ``v_j``
    subject to ``v_m - v_j <= 0``, an E-step with reward ``-v_j``. The right j is the one whose
    multipliers, which sum to one over all costs, are all nonnegative.
    """
    if problem.num_features == 2 and (only := least_cost(problem)) is not None:
        return only
    best: tuple[float, Answer] | None = None
    costs = range(1, problem.num_features)
    excess = problem.levels / problem.violation_unit
    for j in sorted(costs, key=lambda m: -excess[m]):
        others = [m for m in costs if m != j]
        shares = problem.features / problem.violation_unit[:, None, None]
        features = np.concatenate([shares[j : j + 1], shares[others] - shares[j]])
        spread = np.sqrt(np.mean(features**2, axis=(1, 2)))
        levels = np.append(0.0, (excess[others] - excess[j]))
        varies = spread > 1e-12 * spread[0]
        if np.any(levels[~varies] > COST_TOLERANCE):
            continue
        features = features[varies] / spread[varies][:, None, None]
        reduced = Problem(
            features,
            levels[varies] / spread[varies],
            np.ones(len(features)),
            problem.kl_bound,
            np.abs(features).max((1, 2)),
        )
        answer = solve_feasible(reduced, *guess(reduced)[1:])
        problem.num_steps += reduced.num_steps
        if answer is None:
            continue
        share = np.zeros(problem.num_features)
        share[np.array([j, *others])[varies]] = answer.moments.theta / spread[varies]
        share[j] -= share[others].sum()
        theta = np.maximum(share, 0.0) / problem.violation_unit
        moments = _inside_ball(problem, problem.evaluate(theta))
        worst = float(np.max(((problem.levels - moments.grad) / problem.violation_unit)[1:]))
        if best is None or worst < best[0]:
            binding = tuple(m for m in costs if theta[m] > 0.0)
            best = worst, Answer(moments, False, binding, answer.kl_is_slack)
        if share[j] >= 0.0:
            break
    assert best is not None  # the cost that is worst at uniform weights has a feasible point
    return replace(best[1], moments=problem.evaluate(best[1].moments.theta))


def _inside_ball(problem: Problem, moments: Moments) -> Moments:
    """``moments``, or those of a smaller multiple of theta where it left the KL ball."""
    if moments.kl <= problem.kl_bound * (1.0 + KL_TOLERANCE):
        return problem.evaluate(moments.theta)
    return solve_on_ray(problem, moments.theta, 1.0, 1.0)[0]


def minimise_dual(problem: Problem, cap: Array) -> Answer:
    """Minimise ``g(eta, lambda)`` over ``eta >= 1/beta_max`` and ``0 <= lambda <= cap``.

    The floor on ``eta`` comes down by factors of ten, each start extrapolated from the last two:
    close to a linear program (KL budget not used up) ``lambda`` only moves with ``eta``.
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
        # Rounding of lambda moves the weights by 1e-16 / eta: no gradient is better than that.
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
    return Answer(_inside_ball(problem, problem.evaluate(theta)), True, binding, at_floor)
