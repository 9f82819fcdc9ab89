r"""Lagrange multipliers of cost constraints: their updates, and their place in a loss.

Every update is a pure function from state to state. Costs and limits share one unit, which the caller
chooses, such as episode costs in parts of their limit (``docs/cost_level.md``).

Dimension letter: ``C`` costs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fsrl_ext.errors import checked


class MultiplierState(NamedTuple):
    """The state that the next update starts from, with one entry per cost."""

    multipliers: Tensor
    """``[C]``, within ``[0, multiplier_max]``."""
    integral: Tensor
    """``[C]`` PID: accumulated surplus, ``>= 0``."""
    cost: Tensor
    """``[C]`` PID: the smoothed cost of the last update."""
    updates: Tensor
    """0-dim: number of updates so far."""


@checked(at_least_one=("num_costs",), non_negative=("value", "integral_gain"))
def initial_multipliers(num_costs: int, value: float = 0.0, *, integral_gain: float = 0.0) -> MultiplierState:
    """Return a state before any update, with all multipliers at ``value``.

    :param integral_gain: gain of a PID controller's integral, which then starts at the value.
    """
    return MultiplierState(
        torch.full((num_costs,), float(value)),
        torch.full((num_costs,), value / integral_gain if integral_gain > 0 else 0.0),
        torch.zeros(num_costs),
        torch.zeros(()),
    )


def _check_state(state: MultiplierState, cost: Tensor) -> None:
    """:raises ValueError: for a state of another number of costs."""
    if state.multipliers.shape != cost.shape:
        raise ValueError(
            f"state must be of {len(cost)} costs as cost is, got {list(state.multipliers.shape)}"
        )


@checked(shapes={"cost": "C", "limit": "C"}, non_negative=("lr",), non_negative_or_inf=("multiplier_max",))
def dual_ascent(
    state: MultiplierState, cost: Tensor, limit: Tensor, *, lr: float, multiplier_max: float
) -> MultiplierState:
    r"""Take a step of dual ascent: :math:`\lambda \leftarrow clip(\lambda + lr (J_c - d), 0, \lambda_{max})`.

    :param cost: ``[C]`` measured or estimated.
    :param limit: ``[C]``; ``inf`` switches a constraint off and sets its multiplier to zero.
    :param lr: rate, per unit of cost.
    """
    _check_state(state, cost)
    multipliers = (state.multipliers + lr * (cost - limit)).clamp(0.0, multiplier_max)
    return state._replace(multipliers=multipliers, updates=state.updates + 1)


@checked(
    shapes={"cost": "C", "limit": "C"},
    non_negative=("gains",),
    below_one=("smoothing",),
    non_negative_or_inf=("multiplier_max",),
    positive_or_inf=("surplus_max",),
)
def pid_control(
    state: MultiplierState,
    cost: Tensor,
    limit: Tensor,
    *,
    gains: tuple[float, float, float],
    smoothing: float,
    multiplier_max: float,
    surplus_max: float = math.inf,
) -> MultiplierState:
    r"""Take a step of a PID controller (Stooke, Achiam, Abbeel 2020, arXiv 2007.03964, algorithm 2).

    With the smoothed cost :math:`\bar J_k = s \bar J_{k-1} + (1 - s) J_k` and the surplus :math:`J_k - d`,

    .. math::
        I_k &= clip(I_{k-1} + \min(J_k - d, e_{max}),\; 0,\; \lambda_{max} / K_I) \\
        \lambda_k &= clip(K_P (\bar J_k - d) + K_I I_k + K_D (\bar J_k - \bar J_{k-1})_+,
            \; 0,\; \lambda_{max})

    The derivative acts on rising cost only, and on cost instead of surplus, so a changed limit does not move
    it. The integral is bounded by the value at which it alone reaches the multiplier's cap. One update adds
    at most :math:`e_{max}` to the integral, which falls by at most the limit per update and would otherwise
    keep the cost of an untrained policy for long.

    :param cost: ``[C]`` measured or estimated.
    :param limit: ``[C]``; ``inf`` switches a constraint off and sets its multiplier and integral to zero.
    :param gains: :math:`K_P, K_I, K_D`, per unit of cost.
    :param smoothing: s in ``[0, 1)``.
    :param surplus_max: :math:`e_{max}` in units of cost.
    """
    _check_state(state, cost)
    proportional, integral, derivative = gains
    # The first cost has no predecessor: it is its own smoothed value and counts as no rise.
    weight = torch.where(state.updates > 0, 1.0 - smoothing, 1.0).to(cost.dtype)
    smoothed = state.cost.lerp(cost, weight)
    rise = torch.where(state.updates > 0, (smoothed - state.cost).clamp(min=0.0), 0.0)
    integral_max = multiplier_max / integral if integral > 0 else 0.0
    accumulated = (state.integral + (cost - limit).clamp(max=surplus_max)).clamp(0.0, integral_max)
    constrained = torch.isfinite(limit)
    surplus = torch.where(constrained, smoothed - limit, 0.0)
    control = proportional * surplus + integral * accumulated + derivative * rise
    multipliers = torch.where(constrained, control.clamp(0.0, multiplier_max), 0.0)
    return MultiplierState(multipliers, accumulated, smoothed, state.updates + 1)


@checked(shapes={"multipliers": "C", "cost": "C", "limit": "C"}, non_negative=("penalty",))
def augmented_multipliers(multipliers: Tensor, cost: Tensor, limit: Tensor, *, penalty: float) -> Tensor:
    r"""Return the multipliers ``[C]`` whose plain Lagrangian has the gradient of the augmented one.

    .. math::
        \nabla \frac{(\lambda + c\,(J_c - d))_+^2 - \lambda^2}{2 c} = (\lambda + c\,(J_c - d))_+ \nabla J_c

    Source: the augmented Lagrangian of CAL (Wu et al., ICLR 2024, arXiv 2401.14758).

    :param penalty: c, per unit of cost; 0 returns the multipliers themselves where the limit is finite.
    """
    surplus = cost - limit
    shifted = multipliers + penalty * surplus if penalty > 0 else multipliers
    return torch.where(torch.isfinite(limit), shifted.clamp(min=0.0), 0.0)


@checked(shapes={"loss": "", "cost": "C", "multipliers": "C"})
def lagrangian_loss(loss: Tensor, cost: Tensor, multipliers: Tensor, *, rescale: bool) -> Tensor:
    r"""Add the priced costs to a loss: :math:`L + \sum_m \lambda_m J_m`, over :math:`1 + \sum_m \lambda_m`.

    The division keeps the size of the gradient when multipliers are large (arXiv 2007.03964).

    :param loss: 0-dim loss without a constraint.
    :param cost: ``[C]``, in the unit that the multipliers price.
    :param multipliers: ``[C]``, without gradient.
    :param rescale: whether to divide.
    """
    total = loss + (multipliers * cost).sum()
    return total / (1.0 + multipliers.sum()) if rescale else total


@checked(shapes={"advantages": "T S", "multipliers": "C"})
def lagrangian_advantage(advantages: Tensor, multipliers: Tensor, *, rescale: bool) -> Tensor:
    r"""Return the Lagrangian's advantages ``[T]``: :math:`A_r - \sum_m \lambda_m A_m`.

    With ``rescale`` they are divided by :math:`1 + \sum_m \lambda_m`, as in :func:`lagrangian_loss`.

    :param advantages: ``[T, 1 + C]`` of reward and costs, in the unit that the multipliers price.
    :param multipliers: ``[C]``.
    :param rescale: whether to divide.
    """
    if advantages.shape[1] != 1 + len(multipliers):
        raise ValueError(
            f"advantages must have shape [T, {1 + len(multipliers)}], of the reward and of each multiplier's "
            f"cost, got {list(advantages.shape)}"
        )
    total = advantages[:, 0] - advantages[:, 1:] @ multipliers
    return total / (1.0 + multipliers.sum()) if rescale else total
