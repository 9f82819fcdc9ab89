"""Action values of the reward and of each cost, and the reduction of an ensemble to one estimate.

Dimension letters: ``B`` batch, ``N`` actions per state, ``C`` costs, ``E`` members of an ensemble.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from torch import Tensor

from fsrl_ext.errors import checked

CostReduction = Literal["mean", "max", "ucb"]


class QValues(NamedTuple):
    """Holds the estimates of every ensemble member, for actions ``[B, A]`` or ``[B, N, A]``."""

    reward: Tensor
    """``[E, B]`` or ``[E, B, N]``."""
    cost: Tensor
    """``[C, E, B]`` or ``[C, E, B, N]``."""


@checked()
def reduce_reward(q_reward: Tensor) -> Tensor:
    """Return the minimum over the ensemble, ``[E, ...] -> [...]``: rather too low than too high."""
    return q_reward[0] if len(q_reward) == 1 else q_reward.amin(0)


@checked(non_negative=("ucb_scale",), own=("reduction",))
def reduce_cost(q_cost: Tensor, reduction: CostReduction, ucb_scale: float = 1.0) -> Tensor:
    """Return one estimate per cost, ``[C, E, ...] -> [C, ...]``.

    The minimum is not offered, because it underestimates costs.

    :param reduction: ``"mean"``, ``"max"`` or ``"ucb"`` (mean plus ``ucb_scale`` standard deviations over the
        ensemble, arXiv 2401.14758).
    :param ucb_scale: factor of the standard deviation; only ``"ucb"`` uses it.
    :raises ValueError: ``reduction`` is none of the three.
    """
    if reduction == "mean":
        return q_cost[:, 0] if q_cost.shape[1] == 1 else q_cost.mean(1)
    if reduction == "max":
        return q_cost.amax(1)
    if reduction == "ucb":
        return q_cost.mean(1) + ucb_scale * q_cost.std(1, correction=0)
    raise ValueError(f"cost_reduction must be one of {get_args(CostReduction)}, got {reduction!r}")
