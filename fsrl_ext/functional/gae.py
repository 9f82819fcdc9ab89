"""Generalised advantage estimation for reward and all costs in one pass.

Letters: ``T`` steps in time order, ``E`` environments (any number of such axes, or none), ``S`` signals
(reward first, then the costs).

Source: Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation",
ICLR 2016 (arXiv 1506.02438), eq. 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """Answer of :func:`generalised_advantages`."""

    advantages: Tensor
    """``[T, ..., S]``."""
    returns: Tensor
    """``[T, ..., S]`` targets of the value functions, ``advantages + values`` (TD(lambda))."""


def generalised_advantages(
    signals: Tensor,
    values: Tensor,
    next_values: Tensor,
    *,
    terminated: Tensor,
    ends: Tensor,
    gamma: float | Sequence[float],
    gae_lambda: float | Sequence[float],
) -> Advantages:
    r"""Advantages and value targets of every step.

    .. math::
        \delta_t &= x_t + \gamma (1 - \text{terminated}_t) V(s'_t) - V(s_t) \\
        A_t &= \delta_t + \gamma \lambda (1 - \text{ends}_t) A_{t+1}

    :math:`s'_t` is the state that the step really led to: at a time limit and where an epoch cuts an
    episode, the final observation of the episode so far and not the first one of the next. So both
    bootstrap, and only a terminal state does not.

    The recursion is solved by doubling, in about log2(T) passes over all steps: a loop of T tensor operations
    is some hundred times slower for one long row.

    :param signals: ``[T, ..., S]`` reward and costs.
    :param values: ``[T, ..., S]`` values of the state before each step.
    :param next_values: ``[T, ..., S]`` values of the state after each step. Where it is terminal they are
        not read and may be anything, NaN included.
    :param terminated: ``[T, ...]`` bool, whether the step led to a terminal state.
    :param ends: ``[T, ...]`` bool, whether the next row is not the continuation of this one: terminal state,
        time limit, or an epoch's cut. The last row always counts as one; a terminal state does too.
    :param gamma: discount factor in [0, 1], one or one per signal; likewise ``gae_lambda``.
    :raises ValueError: for shapes that do not match and numbers outside [0, 1].
    """
    for name, other in (("values", values), ("next_values", next_values)):
        if other.shape != signals.shape:
            raise ValueError(f"{name} must have shape {list(signals.shape)}, got {list(other.shape)}")
    for name, flag in (("terminated", terminated), ("ends", ends)):
        if flag.shape != signals.shape[:-1] or flag.dtype != torch.bool:
            shape = list(signals.shape[:-1])
            raise ValueError(f"{name} must be bool of shape {shape}, got {flag.dtype} {list(flag.shape)}")
    discount = _per_signal("gamma", gamma, signals)
    decay = discount * _per_signal("gae_lambda", gae_lambda, signals)
    zero = signals.new_zeros(())
    ahead = torch.where(terminated[..., None], zero, discount * next_values)
    total = signals + ahead - values
    weight = torch.where((terminated | ends)[..., None], zero, decay).expand_as(total).clone()
    # After the pass with shift k, total_t is the sum of 2k terms and weight_t what the next one gets.
    shift = 1
    while shift < len(total):
        total[:-shift] = total[:-shift] + weight[:-shift] * total[shift:]
        weight[:-shift] = weight[:-shift] * weight[shift:]
        shift *= 2
    return Advantages(total, total + values)


def _per_signal(name: str, value: float | Sequence[float], signals: Tensor) -> Tensor:
    found = torch.as_tensor(value, dtype=signals.dtype, device=signals.device)
    if found.dim() > 0 and found.shape != signals.shape[-1:]:
        raise ValueError(f"{name} must be one number or {signals.shape[-1]}, got {list(found.shape)}")
    if not bool(((found >= 0.0) & (found <= 1.0)).all()):
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return found
