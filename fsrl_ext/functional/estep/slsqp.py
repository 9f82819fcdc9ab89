"""The E-step as the authors of CVPO solve it: SciPy's SLSQP on the dual, with a loose tolerance.

This solver reproduces their results. Bounds, tolerance, number of iterations and warm start are those of the
authors' released code (Liu et al. 2022); neither the KL bound nor the cost constraint is met exactly, and a
problem without a feasible q drives the multipliers to their bound.
:func:`fsrl_ext.functional.estep.solve_dual` is exact, and faster.

Letters: ``B`` states, ``N`` actions per state, ``C`` costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from fsrl_ext.errors import checked
from fsrl_ext.functional.estep.dual import (
    EStepSolution,
    Status,
    boltzmann_weights,
    dual_gradient,
    dual_value,
    kkt_residual,
    kl_to_prior,
    kl_to_uniform,
)
from fsrl_ext.functional.estep.problem import check_inputs

BOUNDS = (1e-6, 1e5)
TOLERANCE = 1e-3
ITERATIONS = 10


@checked()
def solve_dual_slsqp(
    q_reward: Tensor,
    q_cost: Tensor,
    *,
    kl_bound: float,
    cost_threshold: Tensor,
    start: Sequence[float] | None = None,
    log_prior: Tensor | None = None,
) -> EStepSolution:
    """Minimise the dual approximately over ``(eta, lambda)``, both in [1e-6, 1e5], in float64.

    :param q_reward: ``[B, N]``.
    :param q_cost: ``[C, B, N]``.
    :param kl_bound: eps > 0, in nats.
    :param cost_threshold: d ``[C]``; a cost without a finite threshold is left out of the constraints.
    :param start: temperature and multipliers, ``1 + C`` numbers, such as those of the solution before (as in
        the released code); all ones if ``None``.
    :param log_prior: as for ``solve_dual``.
    :return: the solution, with ``kl`` and ``expected_cost`` of its weights. The status is ``"infeasible"``
        when a cost stays more than 1% of its standard deviation above its threshold, ``"active"`` when a
        multiplier has left its lower bound, ``"slack"`` otherwise.
    :raises ValueError: for inputs that ``solve_dual`` refuses.
    """
    check_inputs(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=cost_threshold, log_prior=log_prior)
    if start is not None and len(start) != 1 + len(q_cost):
        raise ValueError(f"start must have {1 + len(q_cost)} numbers, got {list(start)}")
    reward, cost = q_reward.detach().double().cpu(), q_cost.detach().double().cpu()
    threshold = cost_threshold.detach().double().cpu()
    prior = None if log_prior is None else log_prior.detach().double().cpu().log_softmax(-1)
    finite = torch.isfinite(threshold)
    level = torch.where(finite, threshold, torch.zeros_like(threshold))
    cost = cost * finite[:, None, None]

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        temperature, multipliers = torch.tensor(x[0]), torch.tensor(x[1:])
        point = (reward, cost, temperature, multipliers)
        value = dual_value(*point, kl_bound=kl_bound, cost_threshold=level, log_prior=prior)
        slope = dual_gradient(*point, kl_bound=kl_bound, cost_threshold=level, log_prior=prior)
        return float(value), slope.numpy()

    first = np.ones(1 + len(cost)) if start is None else np.array(start)
    minimum = minimize(
        objective,
        np.clip(first, *BOUNDS),
        jac=True,
        method="SLSQP",
        bounds=[BOUNDS] * len(first),
        tol=TOLERANCE,
        options={"maxiter": ITERATIONS},
    )
    x = np.clip(np.nan_to_num(minimum.x, nan=BOUNDS[1]), *BOUNDS)
    multipliers = torch.tensor(x[1:])
    weights = boltzmann_weights(reward, cost, float(x[0]), multipliers, prior)
    expected_cost = (weights * q_cost.detach().double().cpu()).sum(-1).mean(-1)
    surplus = torch.where(finite, expected_cost - level, -torch.ones_like(level))
    status: Status = "slack"
    if bool((surplus > 0.01 * cost.std((1, 2), correction=0)).any()):
        status = "infeasible"
    elif bool((multipliers[finite] > 10 * BOUNDS[0]).any()):
        status = "active"
    device = q_reward.device
    solution = EStepSolution(
        weights=weights.to(device=device, dtype=q_reward.dtype),
        temperature=float(x[0]),
        multipliers=multipliers.to(device),
        kl=float(kl_to_uniform(weights) if prior is None else kl_to_prior(weights, prior)),
        expected_cost=expected_cost.to(device),
        status=status,
        kkt_residual=0.0,
        num_steps=int(minimum.nfev),
    )
    residual = kkt_residual(
        q_reward, q_cost, solution, kl_bound=kl_bound, cost_threshold=cost_threshold, log_prior=log_prior
    )
    return replace(solution, kkt_residual=residual)
