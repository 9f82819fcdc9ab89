"""Surrogates of a rollout as functions of flat parameters, for steps that are differentiated.

Dimension letters: ``T`` steps, ``P`` parameters, ``m`` constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fsrl_ext.functional.gaussian import entropy, kl_divergence, log_density
from fsrl_ext.functional.inverse_metric import InverseMetric
from fsrl_ext.functional.meta_gradient import SurrogateLoss
from fsrl_ext.functional.trust_region import FisherVectorProduct, flatten, unflatten
from fsrl_ext.policy.onpolicy import Rollout
from fsrl_ext.policy.onpolicy_config import TrustRegionConfig


def surrogate_loss(
    actor: nn.Module,
    rollout: Rollout,
    advantage: Tensor,
    cost_advantages: Tensor,
    *,
    entropy_weight: float = 0.0,
) -> SurrogateLoss:
    """``phi [P] -> (-mean(ratio A) - w entropy [], mean(ratio A_c) [m])``.

    The actor's own parameters are not read.

    :param advantage: ``[T]``; ``cost_advantages`` ``[m, T]``.
    :param entropy_weight: w; the entropy is in nats, its mean over the states.
    """
    like = {name: x.detach() for name, x in actor.named_parameters()}

    def loss(phi: Tensor) -> tuple[Tensor, Tensor]:
        (mean, std), _ = functional_call(actor, unflatten(phi, like), (rollout.obs,))
        ratio = (log_density(mean, std, rollout.act) - rollout.log_density).exp()
        bonus = entropy_weight * entropy(std).mean() if entropy_weight else 0.0
        return -(ratio * advantage).mean() - bonus, (ratio * cost_advantages).mean(1)

    return loss


def mean_kl(actor: Callable[[Tensor], Any], rollouts: Sequence[Rollout], every: int = 1) -> Tensor:
    """Mean divergence, 0-dim, of the policies that collected from the actor's as it is now."""
    parts = []
    for rollout in rollouts:
        (mean, std), _ = actor(rollout.obs[::every])
        parts.append(kl_divergence(rollout.mean[::every], rollout.std[::every], mean, std))
    return torch.cat(parts).mean()


def fisher_metric(actor: nn.Module, rollouts: Sequence[Rollout], config: TrustRegionConfig) -> InverseMetric:
    """Products with the inverse of the damped Fisher matrix of the actor, which collected the rollouts.

    They go on being those of the actor as it is now when its parameters change.
    """
    like = {name: x.detach() for name, x in actor.named_parameters()}
    phi = flatten(like.values()).requires_grad_()
    frozen = unflatten(phi, like)

    def acting(obs: Tensor) -> tuple[tuple[Tensor, Tensor], Any]:
        return functional_call(actor, frozen, (obs,))

    divergence = mean_kl(acting, rollouts, round(1 / config.fisher_fraction))
    fisher = FisherVectorProduct(divergence, [phi], damping=config.cg_damping)
    return InverseMetric(fisher, max_iterations=config.cg_iterations)
