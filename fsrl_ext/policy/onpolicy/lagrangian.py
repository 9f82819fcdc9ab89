"""Functions of TRPO-Lag, PPO-Lag and FOCOPS: multipliers in the advantage, passes of an optimiser.

Dimension letters: ``B`` batch, ``T`` steps of a collect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fsrl_ext.functional.distribution import distribution
from fsrl_ext.functional.multiplier import lagrangian_advantage
from fsrl_ext.policy.base import per_cost, to_device
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Rollout
from fsrl_ext.policy.optimise import descend


def follow_episodes(
    policy: OnpolicyPolicy[Any], multipliers: Multipliers, rollout: Rollout, *, rescale: bool
) -> tuple[Tensor, dict[str, float]]:
    """Moves the multipliers by the episode costs, and combines the advantages of reward and costs with them.

    Each signal's advantages are first standardised by their own mean and deviation, so that one set of gains
    serves tasks of any scale.

    :param policy: gives episode cost and limits.
    :param multipliers: changed in place, unless no limit is finite.
    :param rollout: gives the advantages.
    :param rescale: whether to divide by one plus the sum of the multipliers.
    :return: the advantage ``[T]`` of the Lagrangian, or the standardised advantage of the reward if no limit
        is finite; and numbers to log.
    """
    # Standardised advantages
    advantages = rollout.advantages
    deviation = advantages.std(0, correction=0) + 1e-8 * policy.signal_scale
    standard = (advantages - advantages.mean(0)) / deviation
    if not policy.constrained:
        return standard[:, 0], {}
    # Multipliers
    cost = to_device(policy.episode_cost, policy.device)
    multipliers.update(cost, policy.cost_bound, policy.cost_unit(policy.step_scale))
    metrics = per_cost("constraint/multiplier", multipliers.values.tolist())
    metrics |= policy.per_constraint("constraint/surplus", (cost - policy.cost_bound).tolist())
    return lagrangian_advantage(standard, multipliers.values, rescale=rescale), metrics


def descend_in_passes(
    policy: OnpolicyPolicy[Any],
    optim: torch.optim.Optimizer,
    rollout: Rollout,
    loss: Callable[[Rollout, Tensor, Any], tuple[Tensor, Tensor]],
    *,
    batch_size: int | None,
    repeat: int,
    kl_stop: float,
    max_grad_norm: float,
) -> tuple[dict[str, float], float]:
    """Takes gradient steps of the actor in passes over a rollout, until the policy has moved far enough.

    :param policy: its actor takes the steps.
    :param optim: optimiser of the actor.
    :param loss: ``(minibatch, ratio [B], distributions) -> (loss, share)``, both 0-dim: the loss, and a share
        of the minibatch to log. The distributions are those of the actor, of
        :mod:`fsrl_ext.functional.distribution`.
    :param batch_size: transitions of a minibatch, ``None`` for all at once.
    :param repeat: largest number of passes.
    :param kl_stop: mean KL divergence, in nats, above which no further pass follows.
    :param max_grad_norm: largest joint norm of the gradients.
    :return: numbers to log, and the mean of the shares.
    :raises NonFiniteError: if a loss is not finite; the step on that loss is not taken.
    """
    parameters = list(policy.actor.parameters())
    steps, total, kl = 0, 0.0, 0.0
    for _ in range(repeat):
        for data in rollout.minibatches(batch_size):
            dist = distribution(policy.actor(data.obs)[0])
            ratio = (dist.log_density(data.act) - data.log_density).exp()
            value, share = loss(data, ratio, dist)
            descend(optim, value, parameters, "actor loss", max_grad_norm)
            steps, total = steps + 1, total + float(share)
        kl = policy._mean_kl(rollout)
        if kl > kl_stop:
            break
    return {"actor/steps": steps, "actor/kl": kl}, total / steps
