"""The E-step's optimum in every case: the public function.

Letters and coordinates are those of :mod:`fsrl_ext.functional.estep.dual` and
:mod:`fsrl_ext.functional.estep.problem`. In order:

1. guess the case from the moments at uniform weights, and try Newton's method there;
2. otherwise decide feasibility: the least KL divergence of any q that meets the costs;
3. feasible: minimise the dual by projected Newton; infeasible: minimise the largest violation.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.errors import checked
from fsrl_ext.functional.estep.dual import EStepSolution, Status, optimality_residual
from fsrl_ext.functional.estep.fallback import inside_ball, least_kl, minimise_dual
from fsrl_ext.functional.estep.newton import (
    COST_TOLERANCE,
    Answer,
    gaussian_beta,
    guess,
    least_cost,
    least_violation_newton,
    newton_with_set_changes,
    reward_only,
)
from fsrl_ext.functional.estep.problem import Array, Problem, Scaled, check_inputs, scale


@checked()
def solve_dual(
    q_reward: Tensor,
    q_cost: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    multiplier_max: float | None = None,
    log_prior: Tensor | None = None,
) -> EStepSolution:
    """Solve the E-step exactly, in float64, and say how it ended.

    The result is never NaN and never leaves the KL ball: ``kl <= kl_bound (1 + 1e-9)``. When a
    feasible q exists, ``expected_cost <= cost_threshold`` to 1e-8 of the cost's spread and the
    duality gap ``dual_value - E_q[Q_r]`` is below 1e-6 of the spread of Q_r. ``kl`` and
    ``expected_cost`` are those of the float64 weights; rounding the returned weights to float32
    moves ``kl`` by less than 1e-7 and ``expected_cost`` by less than 1e-7 max|Q_c|.

    When no feasible q exists, the weights minimise the largest violation
    ``max_m (E_q[Q_c^m] - d_m) / std(Q_c^m)``, with the standard deviation over all B x N entries;
    for one cost that is the q of least cost. ``temperature`` and ``multipliers`` are then those of
    that problem: ``q = softmax(-multipliers . Q_c / temperature)`` and
    ``sum_m multipliers_m std(Q_c^m) = 1``. A cost that no q can change (constant inside each state)
    but that is above its threshold makes the status infeasible and is otherwise left out.

    The temperature has a floor, 1e-7 of the spread of Q_r (over ``max(1, kl_bound)``): where the
    optimum does not use up the KL budget the weights are those of the floor, uniform over exact
    ties. For a flat Q_r the floor is 1e-15 of the size of Q_r.

    Tensors on an accelerator are copied to the CPU, solved there, and the answer is copied back.

    :param q_reward: Q_r ``[B, N]``, floating point, finite.
    :param q_cost: Q_c ``[C, B, N]``; ``C = 0`` is plain MPO.
    :param kl_bound: eps > 0 in nats, a bound on the mean over states of KL(q_i || uniform).
    :param cost_threshold: d ``[C]`` in the unit of Q_c; ``inf`` switches a constraint off.
    :param multiplier_max: makes the constraints elastic: no multiplier exceeds it, the temperature
        is optimal for the capped multipliers (so the KL bound holds) and a cost whose multiplier is
        at the cap may stay above its threshold. The status still says whether a feasible q exists.
        A flat Q_r has no exchange rate to cap, and ignores it.
    :param log_prior: logarithms of the probabilities ``[B, N]`` from which the KL divergence is
        measured, where the N actions are all that there are; ``None`` for actions that were drawn,
        which all count alike. With a prior, "uniform" above means the prior. Its probabilities
        below 1e-9 count as 1e-9.
    :raises ValueError: on shapes that do not match, a ``kl_bound`` or ``multiplier_max`` that is
        not a positive number, thresholds that are NaN or -inf, Q values that are not finite, or
        a prior whose probabilities do not sum to 1.
    """
    check_inputs(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=cost_threshold, log_prior=log_prior)
    if multiplier_max is not None and not 0.0 < multiplier_max < math.inf:
        raise ValueError(f"multiplier_max must be None or a finite number > 0, got {multiplier_max}")
    data = scale(q_reward, q_cost, cost_threshold, log_prior)
    problem = Problem(data.features, data.levels, data.unit, kl_bound, data.largest, data.log_prior)
    answer = _flat_optimum(problem) if data.reward_spread == 0.0 else _optimum(problem)
    elastic = False
    if multiplier_max is not None and data.reward_spread > 0.0:
        cap = np.append(math.inf, multiplier_max * data.cost_spread / data.reward_spread)
        theta = answer.moments.theta
        elastic = not answer.feasible or bool(np.any(theta[1:] > cap[1:] * theta[0]))
        if elastic:
            answer = replace(minimise_dual(problem, cap), feasible=answer.feasible)
    return _report(problem, data, answer, q_reward, q_cost, multiplier_max if elastic else None)


def _optimum(problem: Problem) -> Answer:
    """Solve ``problem``: by Newton's method on the guessed case, otherwise by what cannot fail."""
    feasible, theta, active = guess(problem)
    if not feasible:
        one_cost = problem.num_features == 2
        answer = least_cost(problem) if one_cost else least_violation_newton(problem)
        if answer is not None:
            return answer
    return _feasible_optimum(problem, theta, active) or _least_violation(problem)


def _feasible_optimum(problem: Problem, theta: Array, active: list[int]) -> Answer | None:
    """Solve ``problem``; ``None`` if no q in the KL ball meets the costs.

    :param theta: a guess of the optimum, and ``active`` of the costs that bind there.
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


def _flat_optimum(problem: Problem) -> Answer:
    """Find the weights closest to uniform that meet the costs, for a reward that is constant."""
    if np.all(problem.levels[1:] <= 0.0):
        return Answer(problem.evaluate(np.zeros(problem.num_features)), True)
    for levels in (problem.levels, problem.levels - COST_TOLERANCE):
        moments, value = least_kl(problem, levels)
        if -value <= problem.kl_bound:
            return Answer(inside_ball(problem, moments), True)
    return _least_violation(problem)


def _least_violation(problem: Problem) -> Answer:
    """Minimise the largest violation inside the KL ball, trying one cost after another as the largest.

    With the violations ``v_m``, the solution of ``min max_m v_m`` has some largest cost j: it minimises
    ``v_j`` subject to ``v_m - v_j <= 0``, an E-step with reward ``-v_j``. The right j is the one whose
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
            problem.log_prior,
        )
        answer = _feasible_optimum(reduced, *guess(reduced)[1:])
        problem.num_steps += reduced.num_steps
        if answer is None:
            continue
        share = np.zeros(problem.num_features)
        share[np.array([j, *others])[varies]] = answer.moments.theta / spread[varies]
        share[j] -= share[others].sum()
        theta = np.maximum(share, 0.0) / problem.violation_unit
        moments = inside_ball(problem, problem.evaluate(theta))
        worst = float(np.max(((problem.levels - moments.grad) / problem.violation_unit)[1:]))
        if best is None or worst < best[0]:
            binding = tuple(m for m in costs if theta[m] > 0.0)
            best = worst, Answer(moments, False, binding, answer.kl_is_slack)
        if share[j] >= 0.0:
            break
    assert best is not None  # the cost that is worst at uniform weights has a feasible point
    return replace(best[1], moments=problem.evaluate(best[1].moments.theta))


def _status(problem: Problem, data: Scaled, answer: Answer) -> Status:
    """Name the first status that is true."""
    if not answer.feasible or data.unmeetable:
        return "infeasible"
    if problem.num_actions == 1:
        return "saturated"
    if data.reward_spread == 0.0:
        return "flat"
    if answer.kl_is_slack:
        return "saturated"
    return "active" if answer.binding else "slack"


def _report(
    problem: Problem,
    data: Scaled,
    answer: Answer,
    q_reward: Tensor,
    q_cost: Tensor,
    multiplier_max: float | None,
) -> EStepSolution:
    """Write an answer in the units of the inputs."""
    moments, spread = answer.moments, data.reward_spread
    beta, nu = float(moments.theta[0]), moments.theta[1:] / data.cost_spread
    if beta > 0.0:
        temperature = spread / beta
    elif np.any(nu > 0.0) and not answer.feasible:
        temperature = 1.0 / float(nu @ data.cost_std)
    else:
        temperature = 1e-15 * data.reward_size
    multipliers = np.zeros(len(q_cost))
    multipliers[data.kept] = nu * temperature
    expected_cost = data.cost_mean.copy()
    expected_cost[data.kept] -= moments.grad[1:] * data.cost_spread
    status = _status(problem, data, answer)
    residual = optimality_residual(
        infeasible=not answer.feasible and multiplier_max is None,
        kl=moments.kl,
        kl_bound=problem.kl_bound,
        temperature=temperature,
        multipliers=multipliers[data.kept],
        cost_surplus=(problem.levels - moments.grad)[1:] * data.cost_spread,
        reward_spread=spread,
        cost_spread=data.cost_spread,
        cost_std=data.cost_std,
        multiplier_max=multiplier_max,
    )
    weights = torch.from_numpy(np.ascontiguousarray(problem.weights().T))
    device = q_reward.device
    return EStepSolution(
        weights=weights.to(device=device, dtype=q_reward.dtype),
        temperature=temperature,
        multipliers=torch.from_numpy(multipliers).to(device),
        kl=moments.kl,
        expected_cost=torch.from_numpy(expected_cost).to(device),
        status=status,
        kkt_residual=residual,
        num_steps=problem.num_steps,
    )
