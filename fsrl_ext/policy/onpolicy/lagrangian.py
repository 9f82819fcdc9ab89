"""What TRPO-Lag, PPO-Lag and FOCOPS share: multipliers in the advantage, passes of an optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fsrl_ext.functional.gaussian import log_density
from fsrl_ext.functional.multiplier import lagrangian_advantage
from fsrl_ext.policy.base import per_cost, to_device
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Rollout
from fsrl_ext.policy.optimise import descend


def follow_episodes(
    policy: OnpolicyPolicy[Any], multipliers: Multipliers, rollout: Rollout, *, rescale: bool
) -> tuple[Tensor, dict[str, float]]:
    """Moves the multipliers by the data's episode costs, then combines advantages with them.

    Advantages of reward and costs are standardised first, each by its own mean and deviation, so the
    multipliers price deviations and one set of gains serves tasks of any scale.

    :return: the advantage ``[T]`` of the Lagrangian, standardised advantages of the reward where no limit is
        finite; and numbers to log.
    """
    advantages = rollout.advantages
    standard = (advantages - advantages.mean(0)) / (advantages.std(0, correction=0) + 1e-8)
    if not policy.constrained:
        return standard[:, 0], {}
    cost = to_device(policy.episode_cost, policy.device)
    multipliers.update(cost, policy.cost_bound)
    metrics = per_cost("constraint/multiplier", multipliers.values.tolist())
    metrics |= policy.per_constraint("constraint/surplus", (cost - policy.cost_bound).tolist())
    return lagrangian_advantage(standard, multipliers.values, rescale=rescale), metrics


def descend_in_passes(
    policy: OnpolicyPolicy[Any],
    optim: torch.optim.Optimizer,
    rollout: Rollout,
    loss: Callable[[Rollout, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    *,
    batch_size: int | None,
    repeat: int,
    kl_stop: float,
    max_grad_norm: float,
) -> tuple[dict[str, float], float]:
    """Takes the actor's optimiser over a rollout in passes, until the policy has moved far enough.

    :param loss: ``(minibatch, ratio [B], mean [B, A], std [B, A]) -> (loss, share)``, both 0-dim.
    :param kl_stop: mean KL divergence, in nats, after a pass that ends them.
    :return: numbers to log, and the mean of the shares.
    :raises NonFiniteError: if a loss is not finite, before that step.
    """
    parameters = list(policy.actor.parameters())
    steps, total, kl = 0, 0.0, 0.0
    for _ in range(repeat):
        for data in rollout.minibatches(batch_size):
            (mean, std), _ = policy.actor(data.obs)
            ratio = (log_density(mean, std, data.act) - data.log_density).exp()
            value, share = loss(data, ratio, mean, std)
            descend(optim, value, parameters, "actor loss", max_grad_norm)
            steps, total = steps + 1, total + float(share)
        kl = policy._mean_kl(rollout)
        if kl > kl_stop:
            break
    return {"actor/steps": steps, "actor/kl": kl}, total / steps
