"""E-step of constrained variational policy optimisation: its dual, its answer and its certificate.

Letters: ``B`` states, ``N`` actions per state, ``C`` costs.

The actions of a state either are drawn from the old policy, and ``u`` is uniform; or they are all discrete
actions that there are, and ``u`` is the old policy itself (``log_prior`` is then log u). Over weights
``q [B, N]``, each row a distribution::

    maximise    mean_i sum_j q_ij Q_r,ij
    subject to  mean_i sum_j q_ij Q_c^m,ij <= d_m     (every cost m)
                mean_i KL(q_i || u) <= eps

Its Lagrangian dual, with ``z = Q_r - sum_m lambda_m Q_c^m``, is jointly convex::

    g(eta, lambda) = eta eps + sum_m lambda_m d_m + eta mean_i log sum_j u_ij exp(z_ij / eta)

and the optimum is ``q = w = softmax_j(z / eta + log u)`` at the minimum of g.

Sources: Liu et al., "Constrained Variational Policy Optimization for Safe RL", ICML 2022
(arXiv 2201.11927), section 4.1, for the constrained problem and its dual; Abdolmaleki et al.,
"Maximum a Posteriori Policy Optimisation", ICLR 2018 (arXiv 1806.06920), for the one without costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.errors import checked
from fsrl_ext.functional.estep.problem import Array, check_inputs, scale, to_numpy

Status = Literal["slack", "active", "infeasible", "flat", "saturated"]


@dataclass(frozen=True, kw_only=True)
class EStepSolution:
    """Answer of :func:`~fsrl_ext.functional.estep.solve_dual`.

    ``status`` is the first of these that is true:

    - ``"infeasible"``: no q inside the KL ball meets every finite cost threshold (to 1e-9 of the
      cost's spread). The weights are those of least violation, as ``solve_dual`` defines it.
    - ``"flat"``: Q_r is constant inside each state (up to rounding of its dtype), so every feasible
      q is optimal. The weights are the feasible ones closest to u.
    - ``"saturated"``: the optimum does not use up the KL budget (``kl < kl_bound``, temperature at
      its floor): the greedy q, or the greedy mix that meets the costs, lies inside the KL ball.
      With one action per state a feasible problem always has this status.
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


def _lagrangian(q_reward: Tensor, q_cost: Tensor, multipliers: Tensor) -> Tensor:
    """Return ``z = Q_r - sum_m lambda_m Q_c^m`` ``[B, N]`` as a new tensor."""
    return q_reward - torch.tensordot(multipliers.to(q_cost.dtype), q_cost, dims=1)


@checked(shapes={"q_reward": "B N", "q_cost": "C B N", "multipliers": "C", "log_prior": "B N"})
def boltzmann_weights(
    q_reward: Tensor,
    q_cost: Tensor,
    temperature: Tensor | float,
    multipliers: Tensor,
    log_prior: Tensor | None = None,
) -> Tensor:
    """Return ``w_ij = u_ij exp(z_ij / eta) / sum_k u_ik exp(z_ik / eta)`` (Liu et al. 2022, eq. 8).

    :param q_reward: ``[B, N]``, ``q_cost`` ``[C, B, N]``.
    :param temperature: eta.
    :param multipliers: lambda ``[C]``.
    :param log_prior: log u ``[B, N]``; ``None`` for a uniform u.
    :return: ``[B, N]``; the maximiser of the Lagrangian at ``(eta, lambda)``.
    """
    logits = _lagrangian(q_reward, q_cost, multipliers) / temperature
    return torch.softmax(logits if log_prior is None else logits + log_prior, dim=-1)


@checked(shapes={"weights": "B N"})
def kl_to_uniform(weights: Tensor) -> Tensor:
    """Return ``mean_i KL(w_i || u) = mean_i sum_j w_ij log(N w_ij)`` in nats, of weights ``[B, N]``."""
    return torch.special.xlogy(weights, weights * weights.shape[-1]).sum(-1).mean()


@checked(shapes={"weights": "B N", "log_prior": "B N"})
def kl_to_prior(weights: Tensor, log_prior: Tensor) -> Tensor:
    """Return ``mean_i KL(w_i || u_i) = mean_i sum_j w_ij (log w_ij - log u_ij)`` in nats.

    :param weights: ``[B, N]``.
    :param log_prior: log u ``[B, N]``, finite.
    """
    return (torch.special.xlogy(weights, weights) - weights * log_prior).sum(-1).mean()


@checked(shapes={"q_cost": "C B N", "log_prior": "B N"}, non_negative=("kl_bound",))
def largest_reduction(q_cost: Tensor, kl_bound: float, log_prior: Tensor | None = None) -> Tensor:
    r"""Return by how much weights inside the KL ball can lower each cost, to first order in its radius.

    .. math:: \sqrt{2 \epsilon \, \mathrm{mean}_i \, \mathrm{Var}_j \, Q_{c,ij}}

    Near the prior the divergence is half the chi-squared one, and weights that are linear in
    :math:`Q_c` lower the cost most.

    :param q_cost: ``[C, B, N]``.
    :param kl_bound: :math:`\epsilon`, in nats, >= 0.
    :param log_prior: log u ``[B, N]``, by which variances are weighted; ``None`` for a uniform u.
    :return: ``[C]`` float64, in the unit of ``q_cost``.
    """
    if log_prior is None:
        return (2.0 * kl_bound * q_cost.double().var(-1, correction=0).mean(-1)).sqrt()
    prior, q_cost = log_prior.double().exp(), q_cost.double()
    mean = (prior * q_cost).sum(-1, keepdim=True)
    return (2.0 * kl_bound * (prior * (q_cost - mean).square()).sum(-1).mean(-1)).sqrt()


@checked(
    shapes={
        **{"q_reward": "B N", "q_cost": "C B N", "multipliers": "C", "cost_threshold": "C"},
        "log_prior": "B N",
    },
    positive=("kl_bound",),
)
def dual_value(
    q_reward: Tensor,
    q_cost: Tensor,
    temperature: Tensor | float,
    multipliers: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    log_prior: Tensor | None = None,
) -> Tensor:
    """Return ``g = eta eps + lambda . d + eta mean_i log sum_j u_ij exp(z_ij / eta)`` (Liu et al. 2022).

    For any ``eta > 0`` and ``lambda >= 0`` the dual bounds the reward of every feasible q from above.

    :param q_reward: ``[B, N]``, ``q_cost`` ``[C, B, N]``.
    :param multipliers: ``[C]``, like ``cost_threshold``. An infinite threshold needs a zero
        multiplier and adds nothing.
    :param log_prior: log u ``[B, N]``; ``None`` for a uniform u.
    :return: scalar tensor, differentiable in ``temperature`` and ``multipliers``.
    """
    z = _lagrangian(q_reward, q_cost, multipliers)
    if log_prior is None:
        log_mean = torch.logsumexp(z / temperature, dim=-1).mean() - math.log(z.shape[-1])
    else:
        log_mean = torch.logsumexp(z / temperature + log_prior, dim=-1).mean()
    threshold = torch.where(torch.isinf(cost_threshold), torch.zeros_like(cost_threshold), cost_threshold)
    priced = (multipliers * threshold.to(multipliers.dtype)).sum()
    return temperature * kl_bound + priced + temperature * log_mean


@checked(
    shapes={
        **{"q_reward": "B N", "q_cost": "C B N", "multipliers": "C", "cost_threshold": "C"},
        "log_prior": "B N",
    },
    positive=("kl_bound",),
)
def dual_gradient(
    q_reward: Tensor,
    q_cost: Tensor,
    temperature: Tensor | float,
    multipliers: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    log_prior: Tensor | None = None,
) -> Tensor:
    """Return ``(dg/deta, dg/dlambda) = (eps - mean_i KL(w_i || u), d - mean_i E_w[Q_c])`` ``[1 + C]``."""
    w = boltzmann_weights(q_reward, q_cost, temperature, multipliers, log_prior)
    kl = kl_to_uniform(w) if log_prior is None else kl_to_prior(w, log_prior)
    by_temperature = (kl_bound - kl).reshape(1)
    by_multipliers = cost_threshold.to(w.dtype) - (w * q_cost).sum(-1).mean(-1)
    return torch.cat([by_temperature, by_multipliers])


def optimality_residual(
    *,
    infeasible: bool,
    kl: float,
    kl_bound: float,
    temperature: float,
    multipliers: Array,
    cost_surplus: Array,
    reward_spread: float,
    cost_spread: Array,
    cost_std: Array,
    multiplier_max: float | None,
) -> float:
    """Return the largest violation of the optimality conditions that weights of Boltzmann form can have.

    The costs are those with a finite threshold that vary inside a state. The equations are those of
    :func:`kkt_residual`.

    :param cost_surplus: ``mean_i E_w[Q_c^m] - d_m`` ``[C]``.
    :param reward_spread: root-mean-square of Q_r around its state means, 0 for a flat Q_r; likewise
        ``cost_spread`` ``[C]``.
    :param cost_std: std(Q_c^m) over all entries ``[C]``.
    :param multiplier_max: cap of the multipliers; a cost at the cap may exceed its threshold.
    """
    residual = max(kl / kl_bound - 1.0, 0.0)
    if infeasible and multiplier_max is None:
        violation = cost_surplus / cost_std
        unequal = float(multipliers * cost_std @ (violation.max() - violation))
        return max(residual, unequal, temperature * abs(kl_bound - kl))
    capped = np.zeros(len(multipliers), dtype=bool)
    if multiplier_max is not None:
        capped = multipliers >= multiplier_max * (1.0 - 1e-9)
    surplus = np.where(capped, np.minimum(cost_surplus, 0.0), cost_surplus)
    residual = max([residual, *np.maximum(surplus, 0.0) / cost_spread])
    if reward_spread > 0.0:
        unused = temperature * abs(kl_bound - kl) + float(multipliers @ np.abs(surplus))
        residual = max(residual, unused / reward_spread)
    return residual


@checked()
def kkt_residual(
    q_reward: Tensor,
    q_cost: Tensor,
    solution: EStepSolution,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    log_prior: Tensor | None = None,
) -> float:
    """Measure how far a solution is from optimal, by its weights, temperature and multipliers alone.

    The residual is dimensionless, the largest of four, with ``s_r`` and ``s_m`` the root-mean-square of Q_r
    and Q_c^m around their state means::

        feasible KL          (KL(w) - eps)_+ / eps
        feasible costs       (E_w[Q_c^m] - d_m)_+ / s_m
        complementarity      (eta |eps - KL(w)| + sum_m lambda_m |E_w[Q_c^m] - d_m|) / s_r
        stationarity         max_ij |w_ij - softmax_j(z_ij / eta)|

    (Boyd and Vandenberghe, "Convex Optimization", 2004, sec. 5.5.3). For an infeasible problem they are the
    conditions of the least-violation problem: Q_r drops out of ``z``, the costs need not be met but those
    with a multiplier share the largest violation ``v = max_m (E_w[Q_c^m] - d_m) / std(Q_c^m)``, and
    complementarity is ``eta |eps - KL|`` and ``sum_m lambda_m std_m (v - v_m)``. For a flat Q_r,
    complementarity is left out, because every feasible q is optimal.

    :param log_prior: log u ``[B, N]``; ``None`` for a uniform u.
    :return: 0 at an exact optimum.
    :raises ValueError: for inputs that ``solve_dual`` refuses.
    """
    check_inputs(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=cost_threshold, log_prior=log_prior)
    data = scale(q_reward, q_cost, cost_threshold, log_prior)
    w = to_numpy(solution.weights).T.astype(np.float64)
    kept = solution.multipliers.detach().cpu().numpy()[data.kept]
    grad = (data.features * w).sum(1).mean(1)[1:]
    # A cost that no q changes makes a problem infeasible without changing what is solved.
    violated = bool(np.any(data.levels[1:] - grad > 1e-8))
    infeasible = solution.status == "infeasible" and violated
    beta = 0.0 if infeasible else data.reward_spread / solution.temperature
    logits = np.tensordot(np.append(beta, kept / solution.temperature * data.cost_spread), data.features, 1)
    if data.log_prior is not None:
        logits += data.log_prior
    boltzmann = np.exp(logits - logits.max(0))
    boltzmann /= boltzmann.sum(0)
    residual = optimality_residual(
        infeasible=infeasible,
        kl=_kl(solution.weights.double(), data.log_prior),
        kl_bound=kl_bound,
        temperature=solution.temperature,
        multipliers=kept,
        cost_surplus=(data.levels[1:] - grad) * data.cost_spread,
        reward_spread=data.reward_spread,
        cost_spread=data.cost_spread,
        cost_std=data.cost_std,
        multiplier_max=None,
    )
    return max(residual, float(np.abs(w - boltzmann).max()))


def _kl(weights: Tensor, log_prior: Array | None) -> float:
    """Return the mean divergence of weights ``[B, N]`` from the prior ``[N, B]``, or from uniform weights."""
    if log_prior is None:
        return float(kl_to_uniform(weights))
    return float(kl_to_prior(weights.cpu(), torch.from_numpy(log_prior.T)))
