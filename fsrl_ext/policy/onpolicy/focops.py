"""First Order Constrained Optimization in Policy Space (Zhang et al. 2020, arXiv 2002.06506)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.gaussian import kl_divergence
from fsrl_ext.policy.multipliers import Multipliers, OnpolicyMultiplierConfig
from fsrl_ext.policy.onpolicy.base import OnpolicyConfig, OnpolicyPolicy, Rollout
from fsrl_ext.policy.onpolicy.lagrangian import descend_in_passes, follow_episodes


@dataclass(frozen=True, kw_only=True)
class FOCOPSConfig(OnpolicyConfig, OnpolicyMultiplierConfig):
    """Settings of :class:`FOCOPSPolicy`."""

    temperature: float = 1.5
    """Lambda of the paper: how far the optimal policy of an update is from the old one; larger is nearer."""
    kl_bound: float = 0.02
    """Divergence in nats, both the bound eta in single states, beyond which a state has no gradient, and
    the mean at which the passes over the data end."""
    max_grad_norm: float = 0.5
    """Largest joint norm of the actor's gradients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, positive=("temperature", "kl_bound", "max_grad_norm"))


class FOCOPSPolicy(OnpolicyPolicy[FOCOPSConfig]):
    """FOCOPS as a Tianshou policy.

    The optimal policy of a constrained trust-region problem is known in closed form up to a factor; the
    actor is fitted to it by gradient descent, in the states that are still within the bound.

    :param actor_optim: optimiser of the actor.

    The other parameters are described in :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy` and
    :class:`FOCOPSConfig`.
    """

    config_type = FOCOPSConfig

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
        advantage, metrics = follow_episodes(self, self.multipliers, rollout, rescale=config.rescale)
        # The advantage travels with its transitions into the minibatches.
        rollout = rollout._replace(advantages=advantage[:, None])

        def loss(data: Rollout, ratio: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
            return focops_loss(
                kl_divergence(mean, std, data.mean, data.std),
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
    r"""The loss of the paper's eq. 11 and algorithm 1, and the share of states that count.

    .. math:: \frac1B \sum_b 1[KL_b \le \eta]
        \left( KL(\pi_\theta \| \pi_{old})_b - \tfrac1\lambda \rho_b A_b \right)

    :param divergence: ``[B]`` of the new policy from the old one, in every state.
    :param ratio: ``[B]``; ``advantage`` of the Lagrangian likewise.
    """
    inside = (divergence.detach() <= kl_bound).to(divergence.dtype)
    return (inside * (divergence - ratio * advantage / temperature)).mean(), inside.mean()
