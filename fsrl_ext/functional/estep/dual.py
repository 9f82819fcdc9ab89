"""The dual of the E-step as a function of tensors: value, gradient, Hessian, weights, residual.

Letters: ``B`` states, ``N`` actions per state, ``C`` costs. Equations are those of
:mod:`fsrl_ext.functional.estep`; ``z = Q_r - sum_m lambda_m Q_c^m`` and ``w = softmax_j(z / eta)``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.functional.estep.problem import Array
from fsrl_ext.functional.estep.scaling import Scaled, to_numpy


def lagrangian(q_reward: Tensor, q_cost: Tensor, multipliers: Tensor) -> Tensor:
    """``z = Q_r - sum_m lambda_m Q_c^m``.

    :param q_reward: ``[B, N]``.
    :param q_cost: ``[C, B, N]``.
    :param multipliers: ``[C]``.
    :return: ``[B, N]``, a new tensor; no input is changed.
    """
    return q_reward - torch.tensordot(multipliers.to(q_cost.dtype), q_cost, dims=1)


def boltzmann_weights(
    q_reward: Tensor, q_cost: Tensor, temperature: Tensor | float, multipliers: Tensor
) -> Tensor:
    """``w_ij = exp(z_ij / eta) / sum_k exp(z_ik / eta)`` (Liu et al. 2022, eq. 8).

    :return: ``[B, N]``; the maximiser of the Lagrangian at ``(eta, lambda)``.
    """
    return torch.softmax(lagrangian(q_reward, q_cost, multipliers) / temperature, dim=-1)


def kl_to_uniform(weights: Tensor) -> Tensor:
    """``mean_i KL(w_i || u) = mean_i sum_j w_ij log(N w_ij)`` in nats, of weights ``[B, N]``."""
    return torch.special.xlogy(weights, weights * weights.shape[-1]).sum(-1).mean()


def dual_value(
    q_reward: Tensor,
    q_cost: Tensor,
    temperature: Tensor | float,
    multipliers: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
) -> Tensor:
    """``g = eta eps + lambda . d + eta mean_i log mean_j exp(z_ij / eta)`` (Liu et al. 2022).

    For any ``eta > 0`` and ``lambda >= 0`` it bounds the reward of every feasible q from above.

    :param q_reward: ``[B, N]``, ``q_cost`` ``[C, B, N]``.
    :param multipliers: ``[C]``, like ``cost_threshold``. An infinite threshold needs a zero
        multiplier and adds nothing.
    :return: scalar tensor, differentiable in ``temperature`` and ``multipliers``.
    """
    z = lagrangian(q_reward, q_cost, multipliers)
    log_mean = torch.logsumexp(z / temperature, dim=-1).mean() - math.log(z.shape[-1])
    threshold = torch.where(torch.isinf(cost_threshold), torch.zeros_like(cost_threshold), cost_threshold)
    priced = (multipliers * threshold.to(multipliers.dtype)).sum()
    return temperature * kl_bound + priced + temperature * log_mean


def dual_gradient(
    q_reward: Tensor,
    q_cost: Tensor,
    temperature: Tensor | float,
    multipliers: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
) -> Tensor:
    """``(dg/deta, dg/dlambda) = (eps - mean_i KL(w_i || u), d - mean_i E_w[Q_c])``.

    :return: ``[1 + C]``.
    """
    w = boltzmann_weights(q_reward, q_cost, temperature, multipliers)
    by_temperature = (kl_bound - kl_to_uniform(w)).reshape(1)
    by_multipliers = cost_threshold.to(w.dtype) - (w * q_cost).sum(-1).mean(-1)
    return torch.cat([by_temperature, by_multipliers])


def dual_hessian(
    q_reward: Tensor, q_cost: Tensor, temperature: Tensor | float, multipliers: Tensor
) -> Tensor:
    """Second derivatives of the dual, positive semidefinite.

    With variances and covariances under w inside a state, averaged over the states::

        d2g/deta2               = mean_i Var(z) / eta^3
        d2g/deta dlambda_m      = mean_i Cov(z, Q_c^m) / eta^2
        d2g/dlambda_m dlambda_n = mean_i Cov(Q_c^m, Q_c^n) / eta

    :return: ``[1 + C, 1 + C]``.
    """
    w = boltzmann_weights(q_reward, q_cost, temperature, multipliers)
    z = lagrangian(q_reward, q_cost, multipliers)
    rows = torch.cat([(z / temperature)[None], q_cost])
    centred = rows - (w * rows).sum(-1, keepdim=True)
    return torch.einsum("kbn,lbn,bn->kl", centred, centred, w) / w.shape[0] / temperature


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
    """Largest violation of the optimality conditions that weights of Boltzmann form can have.

    Only finite thresholds and costs that vary inside a state come in. The equations
    are in :func:`fsrl_ext.functional.estep.kkt_residual`.

    :param cost_surplus: ``mean_i E_w[Q_c^m] - d_m`` ``[C]``.
    :param reward_spread, cost_spread: root-mean-square of Q inside a state; 0 for a flat Q_r.
    :param cost_std: std(Q_c^m) over all entries ``[C]``.
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


def kkt_residual_of_weights(
    data: Scaled,
    weights: Tensor,
    *,
    infeasible: bool,
    temperature: float,
    multipliers: Array,
    kl_bound: float,
    multiplier_max: float | None,
) -> float:
    """:func:`optimality_residual` and stationarity, from weights ``[B, N]`` and ``data``."""
    w = to_numpy(weights).T.astype(np.float64)
    kept = multipliers[data.kept]
    grad = (data.features * w).sum(1).mean(1)[1:]
    # A cost that no q changes makes a problem infeasible without changing what is solved.
    violated = bool(np.any(data.levels[1:] - grad > 1e-8))
    infeasible = infeasible and violated and multiplier_max is None
    beta = 0.0 if infeasible else data.reward_spread / temperature
    logits = np.tensordot(np.append(beta, kept / temperature * data.cost_spread), data.features, 1)
    boltzmann = np.exp(logits - logits.max(0))
    boltzmann /= boltzmann.sum(0)
    residual = optimality_residual(
        infeasible=infeasible,
        kl=float(kl_to_uniform(weights.double())),
        kl_bound=kl_bound,
        temperature=temperature,
        multipliers=kept,
        cost_surplus=(data.levels[1:] - grad) * data.cost_spread,
        reward_spread=data.reward_spread,
        cost_spread=data.cost_spread,
        cost_std=data.cost_std,
        multiplier_max=multiplier_max,
    )
    return max(residual, float(np.abs(w - boltzmann).max()))
