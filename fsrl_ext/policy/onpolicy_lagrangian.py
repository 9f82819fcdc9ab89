"""Lagrange multipliers in on-policy learning, for TRPO-Lag, PPO-Lag and FOCOPS."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from fsrl_ext.functional.multiplier import lagrangian_advantage
from fsrl_ext.policy.metrics import per_cost
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.transfer import to_device

if TYPE_CHECKING:
    from fsrl_ext.policy.onpolicy import OnpolicyPolicy, Rollout


def follow_episodes(
    policy: OnpolicyPolicy, multipliers: Multipliers, rollout: Rollout, *, rescale: bool
) -> tuple[Tensor, dict[str, float]]:
    """Move the multipliers by the data's episode costs, then combine advantages with them.

    Advantages of reward and costs are standardised first, each by its own mean and deviation, so the
    multipliers price deviations and one set of gains serves tasks of any scale.

    :return: the advantage ``[T]`` of the Lagrangian, standardised advantages of the reward where no limit is
        finite; and numbers to log.
    """
    advantages = rollout.advantages
    standard = (advantages - advantages.mean(0)) / (advantages.std(0, correction=0) + 1e-8)
    if not any(math.isfinite(x) for x in policy.cost_limit):
        return standard[:, 0], {}
    multipliers.update(to_device(policy.episode_cost, policy.device), policy._limits)
    return (
        lagrangian_advantage(standard, multipliers.values, rescale=rescale),
        per_cost("constraint/multiplier", multipliers.values.tolist()),
    )
