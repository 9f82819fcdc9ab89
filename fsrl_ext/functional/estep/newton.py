"""Fast answers to the E-step: a guess, then Newton's method on the optimality conditions.

Letters and coordinates are those of :mod:`fsrl_ext.functional.estep.problem`. Every function returns an
answer only if it satisfies the optimality conditions of the convex problem, so the guess decides how long a
solve takes and not what it returns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fsrl_ext.functional.estep.problem import Array, Moments, Problem

# An answer is accepted at these residuals: KL relative to its bound, costs and dual in scaled units.
KL_TOLERANCE = 1e-9
COST_TOLERANCE = 1e-9
GAP_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Answer:
    """An optimum of a problem.

    :ivar moments: moments at the optimum.
    :ivar feasible: whether some q in the KL ball meets the costs.
    :ivar binding: features of the costs that bind.
    :ivar kl_is_slack: whether the KL budget is not used up, with the temperature at its floor.
    """

    moments: Moments
    feasible: bool
    binding: tuple[int, ...] = ()
    kl_is_slack: bool = False


def solve_on_ray(problem: Problem, direction: Array, start: float, limit: float) -> tuple[Moments, bool]:
    """Find the scale ``s <= limit`` with ``KL(s direction) = kl_bound``.

    KL grows with s, and Newton's method in (log s, log KL), where a Gaussian is a straight line, always ends
    with a bracket around the root.

    :return: the moments there, and whether the limit was reached.
    """
    low, high = 0.0, math.inf
    scale = min(start, limit)
    bound = problem.kl_bound
    moments = problem.evaluate(scale * direction)
    for _ in range(100):
        kl = moments.kl
        if abs(kl - bound) <= 1e-10 * bound:
            return moments, False
        if kl < bound:
            if scale >= limit:
                return moments, True
            low = scale
        else:
            high = scale
        slope = float(direction @ moments.hess @ direction) * scale * scale
        proposal = math.inf
        if kl > 0.0 and slope > 1e-12 * kl:
            exponent = math.log(bound / kl) * kl / slope
            proposal = scale * math.exp(min(max(exponent, -5.0), 5.0))
        if not low < proposal < high:
            if math.isinf(high):
                proposal = 10.0 * scale
            elif low == 0.0:
                proposal = 0.1 * scale
            else:
                proposal = math.sqrt(low * high)
        if not low < proposal < high:  # the bracket is down to neighbouring floats
            break
        scale = min(proposal, limit)
        moments = problem.evaluate(scale * direction)
    if moments.kl > bound * (1 + 1e-9):
        moments = problem.evaluate(low * direction)
    return moments, False


def gaussian_beta(problem: Problem) -> float:
    """Return the inverse temperature that uses the KL budget up if Q_r is Gaussian in each state."""
    return math.sqrt(2.0 * problem.kl_bound / float(problem.moments_at_prior()[0, 0]))


def _inverse(hess: Array) -> Array:
    """Return the pseudoinverse of a symmetric matrix; the general function takes long for a single number."""
    if len(hess) == 1:
        return 1.0 / hess if hess[0, 0] > 0.0 else np.zeros((1, 1))
    return np.linalg.pinv(hess, hermitian=True)


def guess(problem: Problem) -> tuple[bool, Array, list[int]]:
    """Solve the problem for Gaussian features, where ``KL = theta' H theta / 2`` and ``grad = H theta``.

    :return: whether it is feasible, theta, and the features of the costs that bind.
    """
    hess, levels = problem.moments_at_prior(), problem.levels
    budget = 2.0 * problem.kl_bound
    theta = np.zeros(problem.num_features)
    theta[0] = math.sqrt(budget / float(hess[0, 0]))
    active: list[int] = []
    for _ in range(2 * problem.num_features):
        grad = hess @ theta
        grad[active] = math.inf
        grad[0] = math.inf
        worst = int(np.argmin(grad - levels))
        if grad[worst] >= levels[worst]:
            break
        active = sorted([*active, worst])
        while active:
            inverse = _inverse(hess[np.ix_(active, active)])
            needed = inverse @ levels[active]
            left = budget - float(levels[active] @ needed)
            if left <= 0.0:
                return False, theta, active
            coupling = inverse @ hess[active, 0]
            own = float(hess[0, 0] - hess[0, active] @ coupling)
            theta = np.zeros(problem.num_features)
            theta[0] = math.sqrt(left / max(own, 1e-6 * float(hess[0, 0])))
            theta[active] = needed - theta[0] * coupling
            lowest = int(np.argmin(theta[active]))
            if theta[active][lowest] > 0.0:
                break
            active.pop(lowest)
    return True, theta, active


def reward_only(problem: Problem, beta: float) -> Answer | None:
    """Solve plain MPO, from a guess of beta; ``None`` if the answer violates a cost."""
    direction = np.zeros(problem.num_features)
    direction[0] = 1.0
    moments, at_limit = solve_on_ray(problem, direction, beta, problem.beta_max)
    if np.all(moments.grad[1:] >= problem.levels[1:] - COST_TOLERANCE):
        return Answer(moments, True, (), at_limit)
    return None


def newton_with_set_changes(problem: Problem, theta: Array, active: list[int]) -> Answer | None:
    """Run Newton's method on one active set after another, until one is optimal."""
    direction = np.zeros(problem.num_features)
    direction[0] = 1.0
    seen = set()
    while tuple(active) not in seen:
        seen.add(tuple(active))
        answer, vanished = newton(problem, direction, theta, active)
        if vanished:
            active = [m for m in active if m not in vanished]
            theta = np.where(np.isin(np.arange(len(theta)), vanished), 0.0, theta)
            continue
        if answer is None:
            return None
        slack = answer.moments.grad - problem.levels
        slack[active] = slack[0] = math.inf
        if slack.min() >= -COST_TOLERANCE:
            return answer
        theta = answer.moments.theta
        active = sorted([*active, int(np.argmin(slack))])
    return None


def newton(
    problem: Problem,
    direction: Array,
    theta: Array,
    active: list[int],
    *,
    fixed_beta: bool = False,
    max_steps: int = 25,
) -> tuple[Answer | None, list[int]]:
    """Run Newton's method on ``KL = kl_bound`` and ``grad = levels`` of the active costs.

    The unknowns are beta and nu in ``theta = beta direction + nu``; a direction with entries beside the first
    holds multipliers at a cap. The gradient of the KL divergence is ``hess @ theta``, so subtracting the cost
    rows from the KL row leaves the symmetric system ``hess step = rhs``. With ``fixed_beta`` the KL row is
    left out and ``KL <= kl_bound`` suffices.

    :return: the answer, or ``None`` without convergence; and the active costs whose nu went to zero.
    """
    bound, levels = problem.kl_bound, problem.levels[active]
    basis = np.zeros((problem.num_features, 1 + len(active)))
    basis[:, 0] = direction
    basis[active, range(1, 1 + len(active))] = 1.0
    phi = np.array([theta[0], *(theta[m] for m in active)])
    phi[1:] = np.where(phi[1:] > 0.0, phi[1:], 1e-2 * phi[0])
    shrunk = np.zeros(len(phi), dtype=int)
    root = math.sqrt(bound)
    for _ in range(max_steps):
        moments = problem.evaluate(basis @ phi)
        kl, beta = moments.kl, float(phi[0])
        rhs = np.empty(len(phi))
        rhs[1:] = levels - moments.grad[active]
        missed = float(phi[1:] @ rhs[1:])
        worst = float(np.abs(rhs[1:]).max()) if active else 0.0
        if (
            (kl <= bound if fixed_beta else abs(kl - bound) <= KL_TOLERANCE * bound)
            and worst <= COST_TOLERANCE
            and (fixed_beta or abs(bound - kl) <= GAP_TOLERANCE * beta)
            and abs(missed) <= GAP_TOLERANCE * beta
        ):
            return Answer(moments, True, tuple(active), fixed_beta), []
        # sqrt(KL) is close to linear in theta, and KL is not.
        root_kl = math.sqrt(kl)
        rhs[0] = (2.0 * root_kl * (root - root_kl) - missed) / beta
        hess = basis.T @ moments.hess @ basis
        hess[np.diag_indices_from(hess)] *= 1.0 + 1e-14
        first = 1 if fixed_beta else 0
        step = np.zeros(len(phi))
        try:
            step[first:] = np.linalg.solve(hess[first:, first:], rhs[first:])
        except np.linalg.LinAlgError:
            return None, []
        if not np.all(np.isfinite(step)):
            return None, []
        new = phi + step
        shrunk = np.where(new < 0.2 * phi, shrunk + 1, 0)
        vanished = [m for m, times in zip(active, shrunk[1:], strict=True) if times >= 3]
        if vanished:
            return None, vanished
        phi = np.clip(new, 0.2 * phi, 5.0 * phi + 0.1 * phi.max())
        if phi[0] > problem.beta_max and not fixed_beta:
            return None, []
    return None, []


def least_cost(problem: Problem) -> Answer | None:
    """Find the q of least cost in the KL ball, for one cost; ``None`` if it meets the threshold."""
    direction = np.array([0.0, 1.0])
    start = math.sqrt(2.0 * problem.kl_bound / float(problem.moments_at_prior()[1, 1]))
    moments, at_limit = solve_on_ray(problem, direction, start, problem.beta_max)
    if moments.grad[1] >= problem.levels[1] - COST_TOLERANCE:
        return None
    return Answer(moments, False, (1,), at_limit)


def least_violation_newton(problem: Problem) -> Answer | None:
    """Run Newton's method on ``KL = kl_bound`` and equal violations of the costs that have a multiplier.

    The unknowns are nu and the violation tau in units of std(Q_c): ``grad + tau unit = level``. ``None`` if
    the method does not converge, or if the largest violation is not positive.
    """
    bound, hess = problem.kl_bound, problem.moments_at_prior()
    active = list(range(1, problem.num_features))
    while active:
        u, b = problem.violation_unit[active], problem.levels[active]
        inverse = _inverse(hess[np.ix_(active, active)])
        # KL = (b - tau u)' inverse (b - tau u) / 2 = bound, on the branch that falls with tau.
        a0, a1, a2 = float(u @ inverse @ u), float(u @ inverse @ b), float(b @ inverse @ b)
        if a0 <= 0.0:
            return None
        tau = (a1 - math.sqrt(max(a1 * a1 - a0 * (a2 - 2.0 * bound), 0.0))) / a0
        nu = inverse @ (b - tau * u)
        if nu.min() > 0.0:
            break
        active.pop(int(np.argmin(nu)))
    for _ in range(20 if active else 0):
        theta = np.zeros(problem.num_features)
        theta[active] = nu
        moments = problem.evaluate(theta)
        residual = b - moments.grad[active] - tau * u
        if abs(moments.kl - bound) <= KL_TOLERANCE * bound and np.abs(residual).max() <= COST_TOLERANCE:
            excess = ((problem.levels - moments.grad) / problem.violation_unit)[1:]
            if tau > 2 * COST_TOLERANCE and excess.max() <= tau + 2 * COST_TOLERANCE:
                return Answer(moments, False, tuple(active), False)
            return None
        root_kl = math.sqrt(moments.kl)
        missing = 2.0 * root_kl * (math.sqrt(bound) - root_kl)
        step_tau = (float(nu @ residual) - missing) / float(nu @ u)
        try:
            step = np.linalg.solve(moments.hess[np.ix_(active, active)], residual - u * step_tau)
        except np.linalg.LinAlgError:
            return None
        if not (np.all(np.isfinite(step)) and math.isfinite(step_tau)):
            return None
        nu, tau = np.clip(nu + step, 0.2 * nu, 5.0 * nu), tau + step_tau
    return None
