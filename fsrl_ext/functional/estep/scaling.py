"""From Q values of any scale and offset to the E-step's features, and what was left out.

Letters: ``B`` states, ``N`` actions per state, ``C`` costs, ``K = 1 + C``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.functional.estep.problem import Array

# A spread of this many roundings of the input's dtype inside every state is noise.
_NOISE_ROUNDINGS = 4.0


@dataclass(frozen=True)
class Scaled:
    """Centred and scaled Q values, with the costs that a choice of weights can change first.

    :ivar features: ``[1 + len(kept), N, B]``, see :mod:`fsrl_ext.functional.estep.problem`.
    :ivar largest: largest absolute value of each feature.
    :ivar levels, unit: constraint levels and std(Q_c) of the features; entry 0 is unused.
    :ivar kept: indices of the costs with a finite threshold that vary inside some state.
    :ivar unmeetable: indices of those that do not vary and lie above their threshold.
    :ivar reward_spread: root-mean-square of Q_r around its state means; 0 if that is rounding.
    :ivar reward_size: the largest mean of Q_r in a state, 1 if that is 0.
    :ivar cost_spread, cost_std, threshold: of the kept costs; std is over all entries.
    :ivar cost_mean: mean of every cost ``[C]``: its expectation under uniform weights.
    """

    features: Array
    largest: Array
    levels: Array
    unit: Array
    kept: list[int]
    unmeetable: list[int]
    reward_spread: float
    reward_size: float
    cost_spread: Array
    cost_std: Array
    threshold: Array
    cost_mean: Array


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A view of (or copy from) ``tensor`` on the CPU; half precision becomes float32."""
    tensor = tensor.detach()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.cpu().numpy()


def check_inputs(
    q_reward: Tensor,
    q_cost: Tensor,
    kl_bound: float,
    cost_threshold: Tensor,
    multiplier_max: float | None,
) -> None:
    """Shapes and values that :func:`fsrl_ext.functional.estep.solve_dual` can work with.

    :raises ValueError: naming the argument, what it is and what is allowed.
    """
    if q_reward.ndim != 2 or not q_reward.numel() or not q_reward.is_floating_point():
        raise ValueError(
            "q_reward must be a floating-point tensor [B, N] with B, N >= 1, "
            f"got {q_reward.dtype} {list(q_reward.shape)}"
        )
    if q_cost.ndim != 3 or q_cost.shape[1:] != q_reward.shape or not q_cost.is_floating_point():
        raise ValueError(
            f"q_cost must be a floating-point tensor [C, B, N] = [C, {q_reward.shape[0]}, "
            f"{q_reward.shape[1]}] like q_reward, got {q_cost.dtype} {list(q_cost.shape)}"
        )
    if cost_threshold.shape != (len(q_cost),):
        raise ValueError(
            f"cost_threshold must have shape [C] = [{len(q_cost)}] like q_cost, "
            f"got {list(cost_threshold.shape)}"
        )
    thresholds = cost_threshold.tolist()
    if any(math.isnan(d) or d == -math.inf for d in thresholds):
        raise ValueError(f"cost_threshold must be finite or inf (no constraint), got {thresholds}")
    if not 0.0 < kl_bound < math.inf:
        raise ValueError(f"kl_bound must be a finite number > 0, got {kl_bound}")
    if multiplier_max is not None and not 0.0 < multiplier_max < math.inf:
        raise ValueError(f"multiplier_max must be None or a finite number > 0, got {multiplier_max}")


def scale(q_reward: Tensor, q_cost: Tensor, cost_threshold: Tensor) -> Scaled:
    """Centre in each state, divide by the root-mean-square, drop costs that cannot matter.

    :raises ValueError: if a Q value is not finite.
    """
    (num_states, num_actions), num_costs = q_reward.shape, q_cost.shape[0]
    raw = np.empty((1 + num_costs, num_actions, num_states))
    raw[0] = to_numpy(q_reward).T
    if num_costs:
        raw[1:] = to_numpy(q_cost).transpose(0, 2, 1)
    state_mean = np.add.reduce(raw, 1) / num_actions
    if not np.isfinite(state_mean).all():
        raise ValueError(_not_finite(q_reward, q_cost))
    raw -= state_mean[:, None, :]
    high, low = raw.max(1), raw.min(1)
    rounding = _NOISE_ROUNDINGS * torch.finfo(q_reward.dtype).eps
    noise = rounding * (np.abs(state_mean) + np.maximum(high, -low))
    varies = (high - low > noise).any(1)
    largest = np.maximum(high.max(1), -low.min(1))
    flat = raw.reshape(1 + num_costs, -1)
    spread = np.zeros(1 + num_costs)
    for k in np.flatnonzero(varies):
        mean_square = float(np.dot(flat[k], flat[k])) / flat.shape[1]
        if not 1e-200 < mean_square < 1e200:
            mean_square = float(np.mean((flat[k] / largest[k]) ** 2)) * largest[k] ** 2
        spread[k] = math.sqrt(mean_square)
    mean = np.add.reduce(state_mean, 1) / num_states
    between = np.add.reduce((state_mean - mean[:, None]) ** 2, 1) / num_states
    std = np.sqrt(spread**2 + between)

    threshold = to_numpy(cost_threshold).astype(np.float64)
    wanted = np.flatnonzero(threshold < math.inf)
    kept = [int(m) for m in wanted if spread[1 + m] > 0.0]
    allowance = rounding * (np.abs(mean) + largest)[1:]
    unmeetable = [
        int(m) for m in wanted if spread[1 + m] == 0.0 and mean[1 + m] > threshold[m] + allowance[m]
    ]
    rows = [0, *(1 + m for m in kept)]
    divisor = np.where(spread > 0.0, spread, 1.0)
    divisor[1:] *= -1.0
    if len(rows) < 1 + num_costs:
        raw = raw[rows]
    raw /= divisor[rows][:, None, None]
    if spread[0] == 0.0:
        raw[0] = 0.0
    cost_spread = spread[rows[1:]]
    levels = (mean[rows[1:]] - threshold[kept]) / cost_spread
    reward_size = float(np.abs(state_mean[0]).max())
    return Scaled(
        features=raw,
        largest=(largest / np.abs(divisor))[rows],
        levels=np.append(0.0, levels),
        unit=np.append(1.0, std[rows[1:]] / cost_spread),
        kept=kept,
        unmeetable=unmeetable,
        reward_spread=float(spread[0]),
        reward_size=reward_size if reward_size > 0.0 else 1.0,
        cost_spread=cost_spread,
        cost_std=std[rows[1:]],
        threshold=threshold[kept],
        cost_mean=mean[1:],
    )


def _not_finite(q_reward: Tensor, q_cost: Tensor) -> str:
    for name, tensor in (("q_reward", q_reward), ("q_cost", q_cost)):
        bad = tensor[~torch.isfinite(tensor)]
        if len(bad):
            return f"{name} must be finite, got {len(bad)} entries such as {bad[0].item()}"
    return "q_reward and q_cost must be below 1e300 in size, got values that overflow"
