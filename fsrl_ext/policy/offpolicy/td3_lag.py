"""Twin Delayed DDPG (Fujimoto et al., ICML 2018, arXiv 1802.09477) with Lagrange multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsrl_ext.errors import check_fields
from fsrl_ext.policy.offpolicy.deterministic import act_deterministically
from fsrl_ext.policy.offpolicy.lagrangian import (
    ActorCriticConfig,
    ActorObjective,
    LagrangianConfig,
    LagrangianPolicy,
)


@dataclass(frozen=True, kw_only=True)
class TD3Config(ActorCriticConfig):
    """Settings of TD3 without a constraint.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    exploration_std: float = 0.1
    """Standard deviation of the exploration noise, >= 0, for actions in [-1, 1]."""
    target_std: float = 0.2
    """Standard deviation of the noise on the target policy's actions, >= 0, for actions in [-1, 1]."""
    target_clip: float = 0.5
    """Largest absolute value of the noise on the target policy's actions, >= 0."""
    policy_delay: int = 2
    """Steps of the critics for each step of actor and target networks, >= 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            non_negative=("exploration_std", "target_std", "target_clip"),
            at_least_one=("policy_delay",),
        )


@dataclass(frozen=True, kw_only=True)
class TD3LagConfig(TD3Config, LagrangianConfig):
    """Settings of :class:`TD3LagPolicy`."""


class TD3LagPolicy(LagrangianPolicy[TD3LagConfig]):
    """TD3-Lagrangian as a Tianshou policy; plain TD3 without a finite limit.

    The actor is called as ``action, state = actor(obs)``, with actions in ``[-1, 1]``: a
    :class:`~fsrl_ext.net.DeterministicActor` or Tianshou's ``Actor``.
    :class:`~fsrl_ext.policy.offpolicy.lagrangian.LagrangianPolicy` and :class:`TD3LagConfig` describe all
    parameters.
    """

    config_type = TD3LagConfig

    def _set_up(self) -> None:
        self.target_actor = self._copy(self.actor)
        self._targets.add(self.target_actor, self.actor)
        self._critic_steps = 0

    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        std = self.config.exploration_std if explore else 0.0
        return act_deterministically(self.actor, self.data.observations(obs), state, std=std)

    def _next_action(self, obs: Tensor, between: Tensor | None) -> tuple[Tensor, Tensor | None]:
        act = self.target_actor(obs)[0]
        noise = self.config.target_std * torch.randn_like(act)
        return act + noise.clamp(-self.config.target_clip, self.config.target_clip), None

    def _actor_is_due(self) -> bool:
        self._critic_steps += 1
        return self._critic_steps % self.config.policy_delay == 0

    def _actor_objective(self, obs: Tensor) -> ActorObjective:
        q = self.critic(obs, self.actor(obs)[0])
        # The actor follows the first critic alone, as in the paper; the minimum is for targets.
        return ActorObjective(-q.reward[0].mean(), self.config.reduce_cost(q), {})

    def get_extra_state(self) -> dict[str, Any]:
        """Adds the number of critic steps, which tells when the next actor step is due."""
        return super().get_extra_state() | {"critic_steps": self._critic_steps}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        super()._load_progress(state)
        self._critic_steps = state["critic_steps"]
