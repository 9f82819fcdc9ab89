"""Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347) with Lagrange multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import check_fields, checked
from fsrl_ext.policy.multipliers import Multipliers, OnpolicyMultiplierConfig
from fsrl_ext.policy.onpolicy.base import OnpolicyConfig, OnpolicyPolicy, Rollout
from fsrl_ext.policy.onpolicy.lagrangian import descend_in_passes, follow_episodes


@dataclass(frozen=True, kw_only=True)
class PPOConfig(OnpolicyConfig):
    """Settings of PPO without a constraint.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    clip: float = 0.2
    """Distance of the probability ratio from one beyond which it gives no further gradient, > 0."""
    kl_stop: float = 0.02
    """Mean KL divergence from the old policy, in nats, above which the passes over the data end, >= 0."""
    entropy_weight: float = 0.0
    """Weight of the policy's entropy beside the advantage, in standard deviations of the advantage per nat,
    >= 0."""
    max_grad_norm: float = 0.5
    """Largest norm of the actor's gradient, > 0; a longer gradient is scaled down to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("clip", "max_grad_norm"),
            non_negative=("entropy_weight",),
            non_negative_or_inf=("kl_stop",),
        )


@dataclass(frozen=True, kw_only=True)
class PPOLagConfig(PPOConfig, OnpolicyMultiplierConfig):
    """Settings of :class:`PPOLagPolicy`.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """


class PPOLagPolicy(OnpolicyPolicy[PPOLagConfig]):
    """PPO-Lagrangian as a Tianshou policy; plain PPO without a finite limit.

    :param actor_optim: optimiser of the actor.

    :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy` and :class:`PPOLagConfig` describe the other
    parameters.
    """

    config_type = PPOLagConfig

    @checked(at_least_one=("max_episode_steps", "obs_dim"), own=("config", "cost_limit"))
    def __init__(
        self,
        *,
        actor: nn.Module,
        actor_optim: torch.optim.Optimizer,
        critic: nn.Module,
        critic_optim: torch.optim.Optimizer,
        action_space: gym.Space,
        cost_limit: float | Sequence[float],
        max_episode_steps: int,
        obs_dim: int | None = None,
        observation_space: gym.Space | None = None,
        lr_scheduler: TLearningRateScheduler | None = None,
        config: OnpolicyConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            actor=actor,
            critic=critic,
            critic_optim=critic_optim,
            action_space=action_space,
            cost_limit=cost_limit,
            max_episode_steps=max_episode_steps,
            obs_dim=obs_dim,
            observation_space=observation_space,
            lr_scheduler=lr_scheduler,
            config=config,
            **settings,
        )
        self.actor_optim = actor_optim

    def _set_up(self) -> None:
        self.multipliers = Multipliers(self.num_costs, self.config)

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        config = self.config
        # Multipliers, and the advantage of the Lagrangian
        advantage, metrics = follow_episodes(self, self.multipliers, rollout, rescale=config.rescale)
        # The advantage travels with its transitions into the minibatches.
        rollout = rollout._replace(advantages=advantage[:, None])

        # Passes of gradient steps on the clipped loss
        def loss(data: Rollout, ratio: Tensor, dist: Any) -> tuple[Tensor, Tensor]:
            value, share = clipped_loss(ratio, data.advantages[:, 0], config.clip)
            return value - config.entropy_weight * dist.entropy().mean(), share

        passes, clipped = descend_in_passes(
            self,
            self.actor_optim,
            rollout,
            loss,
            batch_size=batch_size,
            repeat=repeat,
            kl_stop=config.kl_stop,
            max_grad_norm=config.max_grad_norm,
        )
        return metrics | passes | {"actor/clipped": clipped}


def clipped_loss(ratio: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    r"""Computes PPO's loss (eq. 7 of the paper) and the share of transitions where it has no gradient.

    .. math:: -\frac1B \sum_b \min(\rho_b A_b, clip(\rho_b, 1 - \epsilon, 1 + \epsilon) A_b)

    :param ratio: :math:`\rho`, ``[B]``: probability ratios of the new policy to the old one.
    :param advantage: A, ``[B]``.
    :param clip: :math:`\epsilon`.
    :return: loss and share, both 0-dim.
    """
    plain, limited = ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage
    return -torch.minimum(plain, limited).mean(), (limited < plain).float().mean()
