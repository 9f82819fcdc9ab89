"""Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347) with Lagrange multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.gaussian import entropy
from fsrl_ext.policy.multiplier_config import OnpolicyMultiplierConfig
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Rollout
from fsrl_ext.policy.onpolicy.config import OnpolicyConfig
from fsrl_ext.policy.onpolicy.lagrangian import descend_in_passes, follow_episodes


@dataclass(frozen=True, kw_only=True)
class PPOLagConfig(OnpolicyConfig, OnpolicyMultiplierConfig):
    """Settings of :class:`PPOLagPolicy`."""

    clip: float = 0.2
    """How far the probability ratio may move from one before its gradient stops."""
    kl_stop: float = 0.02
    """Mean KL divergence, in nats, at which the actor's passes over the data end."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """Largest joint norm of the actor's gradients."""

    def __post_init__(self) -> None:
        OnpolicyConfig.__post_init__(self)
        OnpolicyMultiplierConfig.__post_init__(self)
        check_fields(self, positive=("clip", "max_grad_norm"), non_negative=("kl_stop", "entropy_weight"))


class PPOLagPolicy(OnpolicyPolicy[PPOLagConfig]):
    """PPO-Lagrangian as a Tianshou policy; plain PPO without a finite limit.

    :param actor_optim: optimiser of the actor.

    The other arguments are those of :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy`.
    """

    config_type = PPOLagConfig

    def __init__(self, *, actor_optim: torch.optim.Optimizer, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.actor_optim = actor_optim
        self.multipliers = Multipliers(len(self.cost_limit), self.config)

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        config = self.config
        advantage, metrics = follow_episodes(self, self.multipliers, rollout, rescale=config.rescale)
        # The advantage travels with its transitions into the minibatches.
        rollout = rollout._replace(advantages=advantage[:, None])

        def loss(data: Rollout, ratio: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
            value, share = clipped_loss(ratio, data.advantages[:, 0], config.clip)
            return value - config.entropy_weight * entropy(std).mean(), share

        found, clipped = descend_in_passes(
            self,
            self.actor_optim,
            rollout,
            loss,
            batch_size=batch_size,
            repeat=repeat,
            kl_stop=config.kl_stop,
            max_grad_norm=config.max_grad_norm,
        )
        return metrics | found | {"actor/clipped": clipped}


def clipped_loss(ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    r"""PPO's loss, and the share of transitions where it has no gradient (eq. 7 of the paper).

    .. math:: -\frac1B \sum_b \min(\rho_b A_b, clip(\rho_b, 1 - \epsilon, 1 + \epsilon) A_b)

    :param ratio: ``[B]``; ``advantage`` likewise.
    """
    plain, limited = ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage
    return -torch.minimum(plain, limited).mean(), (limited < plain).float().mean()
