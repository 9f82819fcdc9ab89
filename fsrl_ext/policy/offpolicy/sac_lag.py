"""Soft Actor-Critic with Lagrange multipliers.

Haarnoja et al. 2018, arXiv 1812.05905; with a constraint Ha et al. 2020, arXiv 2002.08550; with the augmented
Lagrangian Wu et al., ICLR 2024, arXiv 2401.14758.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.gaussian import squash
from fsrl_ext.functional.multiplier import augmented_multipliers
from fsrl_ext.net.values import reduce_reward
from fsrl_ext.policy.offpolicy.lagrangian import (
    ActorCriticConfig,
    ActorObjective,
    LagrangianConfig,
    LagrangianPolicy,
)


@dataclass(frozen=True, kw_only=True)
class SACConfig(ActorCriticConfig):
    """Settings of SAC without a constraint.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    entropy: Literal["auto", "fixed"] = "auto"
    """Weight of the policy's entropy: learnt, so that the entropy meets ``target_entropy`` (``auto``), or
    ``fixed``."""
    alpha: float = 0.1
    """Weight of the policy's entropy, > 0, in units of the reward's scale per nat; the first value if the
    weight is learnt."""
    alpha_lr: float = 3e-4
    """Learning rate of the entropy's weight (Adam), >= 0; unused with ``entropy`` ``fixed``."""
    target_entropy: float | None = None
    """Entropy that a learnt weight aims at, in nats; ``None`` for minus the number of action dimensions."""
    deterministic_eval: bool = True
    """Whether the policy acts with the Gaussian's mean outside training steps; false for sampled actions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("alpha",),
            non_negative=("alpha_lr",),
            finite=("target_entropy",),
            choices={"entropy": ("auto", "fixed")},
        )


@dataclass(frozen=True, kw_only=True)
class SACLagConfig(SACConfig, LagrangianConfig):
    """Settings of :class:`SACLagPolicy`.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    augmented_penalty: float = 0.0
    """CAL: penalty of the augmented Lagrangian, >= 0, per surplus of the size of the cost limit; 0 for the
    plain Lagrangian."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, non_negative=("augmented_penalty",))

    @property
    def follows_critic(self) -> bool:
        """Whether multipliers depend on what the critics expect."""
        return super().follows_critic or self.augmented_penalty > 0


class SACLagPolicy(LagrangianPolicy[SACLagConfig]):
    """SAC-Lagrangian as a Tianshou policy; plain SAC without a finite limit.

    Actions are samples of a Gaussian, which a hyperbolic tangent maps into the box. The targets of the reward
    include the entropy in every state of an n-step window but the first one. The targets of the costs do not,
    because an uncertain policy is not more dangerous.

    The actor is called as ``(mean, std), state = actor(obs)`` and gives the Gaussian before the hyperbolic
    tangent: a diagonal :class:`~fsrl_ext.net.GaussianActor` with ``bounded=False``, or Tianshou's
    ``ActorProb`` with ``unbounded=True``. :class:`~fsrl_ext.policy.offpolicy.lagrangian.LagrangianPolicy` and
    :class:`SACLagConfig` describe all parameters.
    """

    config_type = SACLagConfig
    needs_states_between = True

    def _set_up(self) -> None:
        target = self.config.target_entropy
        self.target_entropy = -float(np.prod(self.action_space.shape or ())) if target is None else target
        learnt = self.config.entropy == "auto"
        self.log_alpha = nn.Parameter(torch.tensor(self.config.alpha).log(), requires_grad=learnt)
        if learnt:
            self.alpha_optim = torch.optim.Adam([self.log_alpha], lr=self.config.alpha_lr, fused=True)

    @property
    def alpha(self) -> Tensor:
        """Weight of the entropy, 0-dim, > 0."""
        return self.log_alpha.detach().exp()

    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        (mean, std), state = self.actor(self.data.observations(obs), state=state)
        if not explore and not self.samples_in_evaluations:
            return mean.tanh(), state
        return (mean + std * torch.randn_like(mean)).tanh(), state

    def _sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Samples actions at ``obs [B, O]``; returns them ``[B, A]`` and their log densities ``[B]``."""
        mean, std = self.actor(obs)[0]
        return squash(mean, std, torch.randn_like(mean))

    def _next_action(self, obs: Tensor, between: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert between is not None
        # One pass of the actor serves all states of the windows.
        act, log_prob = self._sample(torch.cat([between.flatten(0, 1), obs]))
        return act[-len(obs) :], -self.alpha * log_prob.view(-1, len(obs))

    def _actor_objective(self, obs: Tensor) -> ActorObjective:
        act, log_prob = self._sample(obs)
        q = self.critic(obs, act)
        loss = (self.alpha * log_prob - reduce_reward(q.reward)).mean()
        return ActorObjective(loss, self.config.reduce_cost(q), {"policy/entropy": -log_prob.detach().mean()})

    def _loss_multipliers(self, cost: Tensor) -> Tensor:
        return augmented_multipliers(
            self.multipliers.values,
            cost / self.cost_unit(self.data.step_scale),
            self.cost_bound / self.cost_unit(self.data.step_scale),
            penalty=self.config.augmented_penalty,
        )

    def _after_actor_step(self, objective: ActorObjective) -> dict[str, Tensor]:
        """Moves the entropy's weight so that the entropy meets its target (arXiv 1812.05905, section 5)."""
        if self.config.entropy == "auto":
            surplus = objective.metrics["policy/entropy"] - self.target_entropy
            self.log_alpha.grad = surplus * self.alpha
            self.alpha_optim.step()
        return {"policy/alpha": self.alpha}
