"""E-step of constrained variational policy optimisation: the reward-optimal q in a KL ball.

Letters: ``B`` states, ``N`` actions per state drawn from the old policy, ``C`` costs.

Over weights ``q [B, N]``, each row a distribution, with ``u`` uniform::

    maximise    mean_i sum_j q_ij Q_r,ij
    subject to  mean_i sum_j q_ij Q_c^m,ij <= d_m     (every cost m)
                mean_i KL(q_i || u) <= eps

Its Lagrangian dual, with ``z = Q_r - sum_m lambda_m Q_c^m`` (jointly convex)::

    g(eta, lambda) = eta eps + sum_m lambda_m d_m + eta mean_i log mean_j exp(z_ij / eta)

Sources: Liu et al., "Constrained Variational Policy Optimization for Safe RL", ICML 2022
(arXiv 2201.11927), section 4.1, for the constrained problem and its dual; Abdolmaleki et al.,
"Maximum a Posteriori Policy Optimisation", ICLR 2018 (arXiv 1806.06920), for the one without costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.functional.estep.dual import (
    boltzmann_weights,
    dual_gradient,
    dual_hessian,
    dual_value,
    kkt_residual_of_weights,
    kl_to_uniform,
    lagrangian,
    optimality_residual,
)
from fsrl_ext.functional.estep.newton import Answer
from fsrl_ext.functional.estep.problem import Problem
from fsrl_ext.functional.estep.scaling import Scaled, check_inputs, scale
from fsrl_ext.functional.estep.solver import minimise_dual, solve, solve_flat

__all__ = [
    "EStepSolution",
    "Status",
    "boltzmann_weights",
    "dual_gradient",
    "dual_hessian",
    "dual_value",
    "kkt_residual",
    "kl_to_uniform",
    "lagrangian",
    "solve_dual",
]

Status = Literal["slack", "active", "infeasible", "flat", "saturated"]


@dataclass(frozen=True, kw_only=True)
class EStepSolution:
    """Answer of :func:`solve_dual`.

    ``status`` is the first of these that is true:

    - ``"infeasible"``: no q inside the KL ball meets every finite cost threshold (to 1e-9 of the
      cost's spread). The weights are those of least violation, see :func:`solve_dual`.
    - ``"flat"``: Q_r is constant inside each state (up to rounding of its dtype), so every feasible
      q is optimal. The weights are the feasible ones closest to uniform.
    - ``"saturated"``: the optimum does not use up the KL budget (``kl < kl_bound``, temperature at
      its floor): the greedy q, or the greedy mix that meets the costs, lies inside the KL ball.
      Always so with one action per state.
    - ``"active"``: ``kl = kl_bound`` and some cost constraint binds (positive multiplier).
    - ``"slack"``: ``kl = kl_bound`` and no cost constraint matters: plain MPO.

    :ivar weights: ``[B, N]``, dtype and device of ``q_reward``; rows sum to 1, nonnegative.
    :ivar temperature: eta, in the unit of Q_r; always positive and finite.
    :ivar multipliers: lambda ``[C]``, float64, Q_r per Q_c; nonnegative and finite.
    :ivar kl: ``mean_i KL(q_i || u)`` in nats.
    :ivar expected_cost: ``mean_i E_q[Q_c^m]`` ``[C]``, float64.
    :ivar status: see above.
    :ivar kkt_residual: :func:`kkt_residual`, dimensionless.
    :ivar num_steps: passes over the samples.
    """

    weights: Tensor
    temperature: float
    multipliers: Tensor
    kl: float
    expected_cost: Tensor
    status: Status
    kkt_residual: float
    num_steps: int


def solve_dual(
    q_reward: Tensor,
    q_cost: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    multiplier_max: float | None = None,
    init: EStepSolution | None = None,
) -> EStepSolution:
    """Solve the E-step exactly, in float64, and say how it ended.

    The result is never NaN and never leaves the KL ball: ``kl <= kl_bound (1 + 1e-9)``. When a
    feasible q exists, ``expected_cost <= cost_threshold`` to 1e-8 of the cost's spread and the
    duality gap ``dual_value - E_q[Q_r]`` is below 1e-6 of the spread of Q_r. ``kl`` and
    ``expected_cost`` are those of the float64 weights; rounding the returned weights to float32
    moves the former by less than 1e-7 and the latter by less than 1e-7 max|Q_c|.

    When no feasible q exists, the weights minimise the largest violation
    ``max_m (E_q[Q_c^m] - d_m) / std(Q_c^m)``, with the standard deviation over all B x N entries;
    for one cost that is the q of least cost. ``temperature`` and ``multipliers`` are then those of
    that problem: ``q = softmax(-multipliers . Q_c / temperature)`` and
    ``sum_m multipliers_m std(Q_c^m) = 1``. A cost that no q can change (constant inside each state)
    but that is above its threshold makes the status infeasible and is otherwise left out.

    The temperature has a floor, 1e-7 of the spread of Q_r (over ``max(1, kl_bound)``): where the
    optimum does not use up the KL budget the weights are those of the floor, uniform over exact
    ties. For a flat Q_r it is 1e-15 of the size of Q_r.

    Tensors on an accelerator are solved on the CPU, with one copy there and one back.

    :param q_reward: Q_r ``[B, N]``, floating point, finite.
    :param q_cost: Q_c ``[C, B, N]``; ``C = 0`` is plain MPO.
    :param kl_bound: eps > 0 in nats, a bound on the mean over states of KL(q_i || uniform).
    :param cost_threshold: d ``[C]`` in the unit of Q_c; ``inf`` switches a constraint off.
    :param multiplier_max: makes the constraints elastic: no multiplier exceeds it, the temperature
        is optimal for the capped multipliers (so the KL bound holds) and a cost whose multiplier is
        at the cap may stay above its threshold. The status still says whether a feasible q exists.
        A flat Q_r has no exchange rate to cap, and ignores it.
    :param init: an earlier solution to start from. It changes the number of steps, not the result;
        one that is neither slack nor active is ignored.
    :raises ValueError: on shapes that do not match, a ``kl_bound`` or ``multiplier_max`` that is
        not a positive number, thresholds that are NaN or -inf, or Q values that are not finite.
    """
    check_inputs(q_reward, q_cost, kl_bound, cost_threshold, multiplier_max)
    if init is not None and init.multipliers.shape != cost_threshold.shape:
        raise ValueError(
            f"init must be a solution with C = {len(q_cost)} multipliers, got {list(init.multipliers.shape)}"
        )
    data = scale(q_reward, q_cost, cost_threshold)
    problem = Problem(data.features, data.levels, data.unit, kl_bound, data.largest)
    if data.reward_spread == 0.0:
        answer = solve_flat(problem)
    else:
        answer = solve(problem, _warm_start(data, init))
    elastic = False
    if multiplier_max is not None and data.reward_spread > 0.0:
        cap = np.append(math.inf, multiplier_max * data.cost_spread / data.reward_spread)
        theta = answer.moments.theta
        elastic = not answer.feasible or bool(np.any(theta[1:] > cap[1:] * theta[0]))
        if elastic:
            answer = replace(minimise_dual(problem, cap), feasible=answer.feasible)
    return _report(problem, data, answer, q_reward, q_cost, multiplier_max if elastic else None)


def _warm_start(data: Scaled, init: EStepSolution | None) -> np.ndarray | None:
    """``theta`` of an earlier solution in the units of this one."""
    if init is None or init.status not in ("slack", "active"):
        return None
    multipliers = init.multipliers.detach().cpu().numpy()[data.kept]
    theta = np.append(data.reward_spread, multipliers * data.cost_spread) / init.temperature
    return theta if np.all(np.isfinite(theta)) and theta[0] > 0.0 else None


def _status(problem: Problem, data: Scaled, answer: Answer) -> Status:
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
    """Back to the units of the inputs."""
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


def kkt_residual(
    q_reward: Tensor,
    q_cost: Tensor,
    solution: EStepSolution,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    multiplier_max: float | None = None,
) -> float:
    """How far ``solution`` is from optimal, from its weights, temperature and multipliers alone.

    The largest of, dimensionless, with ``s_r`` and ``s_m`` the root-mean-square of Q_r and Q_c^m
    around their state means::

        feasible KL          (KL(w) - eps)_+ / eps
        feasible costs       (E_w[Q_c^m] - d_m)_+ / s_m
        complementarity      (eta |eps - KL(w)| + sum_m lambda_m |E_w[Q_c^m] - d_m|) / s_r
        stationarity         max_ij |w_ij - softmax_j(z_ij / eta)|

    (Boyd and Vandenberghe, "Convex Optimization", 2004, sec. 5.5.3). For an infeasible problem
    the same conditions of the least-violation problem: Q_r drops out of ``z``, the costs need not
    be met but those with a multiplier share the largest violation
    ``v = max_m (E_w[Q_c^m] - d_m) / std(Q_c^m)``, and complementarity is
    ``eta |eps - KL|`` and ``sum_m lambda_m std_m (v - v_m)``. With ``multiplier_max``, costs at
    the cap may exceed their threshold. For a flat Q_r, complementarity is left out: every feasible
    q is optimal.

    :return: 0 at an exact optimum.
    """
    check_inputs(q_reward, q_cost, kl_bound, cost_threshold, multiplier_max)
    data = scale(q_reward, q_cost, cost_threshold)
    return kkt_residual_of_weights(
        data,
        solution.weights,
        infeasible=solution.status == "infeasible",
        temperature=solution.temperature,
        multipliers=solution.multipliers.detach().cpu().numpy(),
        kl_bound=kl_bound,
        multiplier_max=multiplier_max,
    )
