"""Deep Deterministic Policy Gradient (Lillicrap et al. 2016, arXiv 1509.02971) with Lagrange multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fsrl_ext.errors import check_fields
from fsrl_ext.net.values import reduce_reward
from fsrl_ext.policy.offpolicy.deterministic import act_deterministically
from fsrl_ext.policy.offpolicy.lagrangian import (
    ActorCriticConfig,
    ActorObjective,
    LagrangianConfig,
    LagrangianPolicy,
)


@dataclass(frozen=True, kw_only=True)
class DDPGConfig(ActorCriticConfig):
    """Settings of DDPG without a constraint.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    exploration_std: float = 0.1
    """Standard deviation of the exploration noise, >= 0, for actions in [-1, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, non_negative=("exploration_std",))


@dataclass(frozen=True, kw_only=True)
class DDPGLagConfig(DDPGConfig, LagrangianConfig):
    """Settings of :class:`DDPGLagPolicy`."""


class DDPGLagPolicy(LagrangianPolicy[DDPGLagConfig]):
    """DDPG-Lagrangian as a Tianshou policy; plain DDPG without a finite limit.

    The actor is called as ``action, state = actor(obs)``, with actions in ``[-1, 1]``: a
    :class:`~fsrl_ext.net.DeterministicActor` or Tianshou's ``Actor``.
    :class:`~fsrl_ext.policy.offpolicy.lagrangian.LagrangianPolicy` and :class:`DDPGLagConfig` describe all
    parameters.
    """

    config_type = DDPGLagConfig

    def _set_up(self) -> None:
        self.target_actor = self._copy(self.actor)
        self._targets.add(self.target_actor, self.actor)

    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        std = self.config.exploration_std if explore else 0.0
        return act_deterministically(self.actor, self.data.observations(obs), state, std=std)

    def _next_action(self, obs: Tensor, between: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.target_actor(obs)[0], None

    def _actor_objective(self, obs: Tensor) -> ActorObjective:
        q = self.critic(obs, self.actor(obs)[0])
        return ActorObjective(-reduce_reward(q.reward).mean(), self.config.reduce_cost(q), {})
