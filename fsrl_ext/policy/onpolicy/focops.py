"""First Order Constrained Optimization in Policy Space (Zhang et al. 2020, arXiv 2002.06506)."""

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
class FOCOPSConfig(OnpolicyConfig, OnpolicyMultiplierConfig):
    """Settings of :class:`FOCOPSPolicy`.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    temperature: float = 1.5
    """Temperature lambda of the paper, > 0: the larger, the nearer is the optimal policy of an update to the
    old one."""
    kl_bound: float = 0.02
    """Bound on the KL divergence from the old policy, in nats, > 0: a state beyond the bound (eta of the
    paper) gives no gradient, and the passes over the data end when the mean over states exceeds it."""
    max_grad_norm: float = 0.5
    """Largest norm of the actor's gradient, > 0; a longer gradient is scaled down to it."""
    cost_margin: float = 0.05
    """Share of each cost limit that the multipliers keep free, in [0, 1). The multiplier that holds the limit
    rises as the policy's noise falls, and the integral follows it from below."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, positive=("temperature", "kl_bound", "max_grad_norm"))


class FOCOPSPolicy(OnpolicyPolicy[FOCOPSConfig]):
    """FOCOPS as a Tianshou policy.

    The optimal policy of a constrained trust-region problem is known in closed form up to a factor. Gradient
    descent fits the actor to that policy, on the states where the actor is still within the KL bound.

    :param actor_optim: optimiser of the actor.

    :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy` and :class:`FOCOPSConfig` describe the other
    parameters.
    """

    config_type = FOCOPSConfig

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

        # Passes of gradient steps towards the optimal policy
        def loss(data: Rollout, ratio: Tensor, dist: Any) -> tuple[Tensor, Tensor]:
            return focops_loss(
                dist.kl(data.dist),
                ratio,
                data.advantages[:, 0],
                temperature=config.temperature,
                kl_bound=config.kl_bound,
            )

        passes, inside = descend_in_passes(
            self,
            self.actor_optim,
            rollout,
            loss,
            batch_size=batch_size,
            repeat=repeat,
            kl_stop=config.kl_bound,
            max_grad_norm=config.max_grad_norm,
        )
        return metrics | passes | {"actor/inside_bound": inside}


def focops_loss(
    divergence: Tensor, ratio: Tensor, advantage: Tensor, *, temperature: float, kl_bound: float
) -> tuple[Tensor, Tensor]:
    r"""Computes the loss of the paper's eq. 11 and algorithm 1, and the share of states within the bound.

    .. math:: \frac1B \sum_b 1[KL_b \le \eta]
        \left( KL(\pi_\theta \| \pi_{old})_b - \tfrac1\lambda \rho_b A_b \right)

    :param divergence: KL, ``[B]``: divergence of the new policy from the old one in every state, in nats.
    :param ratio: :math:`\rho`, ``[B]``: probability ratios of the new policy to the old one.
    :param advantage: A, ``[B]``: advantages of the Lagrangian.
    :param temperature: :math:`\lambda`.
    :param kl_bound: :math:`\eta` in nats; ``inf`` counts every state.
    :return: loss and share, both 0-dim.
    """
    inside = (divergence.detach() <= kl_bound).to(divergence.dtype)
    return (inside * (divergence - ratio * advantage / temperature)).mean(), inside.mean()
