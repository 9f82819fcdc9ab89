"""What SAC-Lag, DDPG-Lag and TD3-Lag share: critics, targets, multipliers, one gradient step.

Dimension letters: ``B`` batch, ``A`` action, ``C`` costs, ``E`` members of a cost ensemble, ``S`` signals
(reward first): ``1 + C``, or ``1 + C * E`` with ``cost_targets="own"``.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch, ReplayBuffer
from tianshou.data.types import ObsBatchProtocol, RolloutBatchProtocol
from tianshou.policy import BasePolicy
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import check_all_finite
from fsrl_ext.functional.multiplier import lagrangian_loss
from fsrl_ext.functional.returns import as_cost_limits, cost_threshold
from fsrl_ext.net.critic import QValues, reduce_cost, reduce_reward
from fsrl_ext.policy.base import QuickStart, check_cost_limits, check_normalised_box
from fsrl_ext.policy.episode_costs import FreshEpisodeCosts
from fsrl_ext.policy.metrics import MetricStats, per_cost
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.offpolicy.config import LagrangianConfig
from fsrl_ext.policy.offpolicy.critic_losses import critic_losses
from fsrl_ext.policy.offpolicy.replay import NewData, nstep_returns, read_window
from fsrl_ext.policy.optimise import clear_gradients, polyak_update, to_device

TConfig = TypeVar("TConfig", bound=LagrangianConfig)


class ActorObjective(NamedTuple):
    """What an actor step is about."""

    loss: Tensor
    """0-dim: the loss without a constraint."""
    q_cost: Tensor
    """``[C, B]``: reduced cost estimates of the actor's actions."""
    metrics: dict[str, Tensor]
    """0-dim numbers to log."""


class LagrangianPolicy(QuickStart, BasePolicy[MetricStats], Generic[TConfig]):
    """Base of the off-policy actor-critics with Lagrange multipliers for one or several costs.

    Every gradient step fits the critics of reward and costs to n-step targets and takes the actor down
    ``(loss + sum lambda Q_c) / (1 + sum lambda)``. The multipliers follow the costs of fresh episodes, once
    per collect cycle, or the critics' estimate, once per actor step. Without a finite limit all of this is
    the plain algorithm, which still learns and logs its costs.

    Actions live in the normalised box ``[-1, 1]``; critics see them as executed.

    :param actor: see the policy.
    :param actor_optim: optimiser of the actor.
    :param critic: ``QValues = critic(obs, act)`` for reward and all costs, such as
        :class:`~fsrl_ext.net.EnsembleCritic`.
    :param critic_optim: optimiser of the critic.
    :param action_space: a bounded ``Box``.
    :param cost_limit: undiscounted cost that an episode may have, one number or one per cost; ``inf`` for no
        constraint. Can be set anew while training.
    :param max_episode_steps: the environment's time limit, for the critics' threshold.
    :param observation_space: kept for Tianshou.
    :param lr_scheduler: called after every update.
    :param config: all other settings; single ones may be given by name instead, as in ``gamma=0.99``.
    :raises ValueError: for unusable spaces, limits or settings.
    """

    config_type: ClassVar[type[LagrangianConfig]]
    config: TConfig

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
        observation_space: gym.Space | None = None,
        lr_scheduler: TLearningRateScheduler | None = None,
        config: TConfig | None = None,
        **settings: Any,
    ) -> None:
        check_normalised_box(action_space, type(self).__name__)
        super().__init__(
            action_space=action_space,
            observation_space=observation_space,
            action_scaling=True,
            action_bound_method="clip",
            lr_scheduler=lr_scheduler,
        )
        self.config = dataclasses.replace(config or self.config_type(), **settings)  # type: ignore[assignment]
        self.actor = actor
        self.actor_optim = actor_optim
        self.critic = critic
        self.critic_optim = critic_optim
        self.max_episode_steps = max_episode_steps
        self._actor_parameters = list(actor.parameters())
        self._critic_parameters = list(critic.parameters())
        self._targets: list[nn.Module] = []
        self._target_parameters: list[Tensor] = []
        self._source_parameters: list[Tensor] = []
        self.target_critic = self._add_target(critic)
        limits = as_cost_limits(cost_limit)
        if len(limits) != getattr(critic, "num_costs", len(limits)):
            raise ValueError(f"cost_limit must have one number per cost of the critic, got {list(limits)}")
        self.multipliers = Multipliers(len(limits), self.config)
        self._limits: Tensor
        self._thresholds: Tensor
        self.register_buffer("_limits", torch.zeros(len(limits)), persistent=False)
        self.register_buffer("_thresholds", torch.zeros(len(limits)), persistent=False)
        self._cost_limit = limits
        self.cost_limit = limits
        self.episode_cost: np.ndarray | None = None
        """``[C]`` mean cost of the episodes that the multipliers saw last."""
        self._new_data = NewData()
        self._fresh_costs = FreshEpisodeCosts()

    def _add_target(self, source: nn.Module) -> Any:
        """A copy that follows its source by ``tau`` after every actor step."""
        target = deepcopy(source).requires_grad_(False).eval()
        self._targets.append(target)
        self._target_parameters += list(target.parameters())
        self._source_parameters += list(source.parameters())
        return target

    @property
    def cost_limit(self) -> tuple[float, ...]:
        """The limit on each cost of an episode, undiscounted."""
        return self._cost_limit

    @cost_limit.setter
    def cost_limit(self, value: float | Sequence[float]) -> None:
        limits = check_cost_limits(value, len(self._cost_limit))
        config = self.config
        thresholds = [
            cost_threshold(
                x, max_episode_steps=self.max_episode_steps, gamma=config.gamma, unit=config.threshold
            )
            for x in limits
        ]
        self._cost_limit = limits
        self._constrained = any(math.isfinite(x) for x in limits)
        self._limits.copy_(torch.tensor(limits))
        self._thresholds.copy_(torch.tensor(thresholds))

    @property
    def cost_threshold(self) -> Tensor:
        """The limits in the unit of the cost critics, ``[C]``."""
        return self._thresholds

    def train(self, mode: bool = True) -> Self:
        """Sets actor and critic to training mode; target networks always evaluate."""
        if mode != self.training:
            super().train(mode)
            for target in self._targets:
                target.eval()
        return self

    def forward(self, batch: ObsBatchProtocol, state: Any = None, **kwargs: Any) -> Batch:
        """Actions ``[B, A]`` in the normalised box for ``batch.obs [B, O]``, exploring in training steps.

        The noise is the policy's own: a collector's ``exploration_noise`` adds none.
        """
        act, state = self._act(batch.obs, state, explore=self.is_within_training_step)
        answer = Batch()
        answer.__dict__.update(act=act, state=state)  # Batch(act=...) would look into every entry first
        return answer

    @abstractmethod
    def _act(self, obs: Any, state: Any, *, explore: bool) -> tuple[Tensor, Any]:
        """Actions ``[B, A]`` and the actor's state."""

    @abstractmethod
    def _next_action(self, obs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Actions ``[B, A]`` that targets bootstrap from, and what adds to their reward value, ``[B]``."""

    @abstractmethod
    def _actor_objective(self, obs: Tensor) -> ActorObjective:
        """The loss of the actor at ``obs [B, O]``, with its graph."""

    def _actor_is_due(self) -> bool:
        """Whether this gradient step moves actor and targets."""
        return True

    def _after_actor_step(self, objective: ActorObjective) -> dict[str, Tensor]:
        """What else a policy learns from an actor step; returns 0-dim numbers to log."""
        return {}

    def _loss_multipliers(self, cost: Tensor) -> Tensor:
        """The multipliers ``[C]`` of the actor's loss, for the critics' mean estimates ``[C]``."""
        return self.multipliers.values

    @torch.no_grad()
    def process_fn(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        """Adds ``batch.returns [B, S]``, n-step targets; ``batch.obs`` and ``batch.act`` become tensors.

        The first call after new data lets the multipliers follow the episodes that ended.
        """
        if self._new_data.arrived(buffer):
            self._begin_cycle(buffer)
        device = self._limits.device
        window, next_obs = read_window(batch, buffer, indices, self.config.estimation_step, device)
        next_act, bonus = self._next_action(next_obs)
        q = self.target_critic(next_obs, self._executed(next_act))
        # Entropy is part of the reward's value alone: costs have no bonus.
        q_reward = reduce_reward(q.reward) if bonus is None else reduce_reward(q.reward) + bonus
        q_cost = q.cost.flatten(0, 1) if self.config.cost_targets == "own" else self._reduce_cost(q)
        bootstrap = torch.cat([q_reward[:, None], q_cost.T], dim=1)
        batch.returns = nstep_returns(buffer, window, bootstrap, gamma=self.config.gamma)
        return batch

    def _begin_cycle(self, buffer: ReplayBuffer) -> None:
        """After new data: the multipliers follow the episodes that ended; without any, they stay."""
        costs = self._fresh_costs.pop(buffer)
        if not len(costs):
            return
        self.episode_cost = costs.mean(0)
        if self.config.multiplier_source == "episodes":
            self.multipliers.update(to_device(self.episode_cost, self._limits.device), self._limits)

    def learning_state(self) -> dict[str, Any]:
        """What the next update depends on besides ``state_dict`` and the optimisers."""
        return {
            "episode_cost": self.episode_cost,
            "new_data": dict(vars(self._new_data)),
            "fresh_costs": dict(vars(self._fresh_costs)),
        }

    def load_learning_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`learning_state`."""
        self.episode_cost = state["episode_cost"]
        vars(self._new_data).update(state["new_data"])
        vars(self._fresh_costs).update(state["fresh_costs"])

    @staticmethod
    def _executed(act: Tensor) -> Tensor:
        """Actions as the environment executes them."""
        return act.clamp(-1.0, 1.0)

    def _reduce_cost(self, q: QValues) -> Tensor:
        """One estimate per cost, ``[C, B]``."""
        return reduce_cost(q.cost, self.config.cost_reduction, self.config.ucb_scale)

    def learn(self, batch: RolloutBatchProtocol, *args: Any, **kwargs: Any) -> MetricStats:
        """One gradient step of the critics and, when due, of the actor, multipliers and targets.

        Both losses are taken before either network moves, so on an accelerator the host waits once.

        :raises NonFiniteError: if a loss is not finite; no parameter has changed then.
        """
        obs, act = batch.obs, batch.act
        assert isinstance(obs, Tensor), "process_fn comes before learn"
        assert isinstance(act, Tensor), "process_fn comes before learn"
        critic = critic_losses(self.critic(obs, self._executed(act)), batch.returns)
        losses, names = [critic.total.detach()], ["critic loss"]
        metrics, objective, actor_loss = critic.metrics(), None, None
        if self._actor_is_due():
            objective = self._actor_objective(obs)
            cost = objective.q_cost.mean(1)
            multipliers = self._loss_multipliers(cost.detach())
            actor_loss = objective.loss
            if self._constrained:
                actor_loss = lagrangian_loss(objective.loss, cost, multipliers, rescale=self.config.rescale)
            losses.append(actor_loss.detach())
            names.append("actor loss")
            metrics |= {"loss/actor": losses[1], **objective.metrics}
            metrics |= per_cost("constraint/multiplier", multipliers)
            metrics |= per_cost("constraint/expected_cost", cost.detach())
        check_all_finite(torch.stack(losses), names)

        clear_gradients(self._critic_parameters)
        critic.total.backward()
        if objective is not None and actor_loss is not None:
            clear_gradients(self._actor_parameters)
            actor_loss.backward(inputs=self._actor_parameters)
            self.critic_optim.step()
            self.actor_optim.step()
            metrics |= self._after_actor_step(objective)
            if self.config.multiplier_source == "critic":
                self.multipliers.update(cost.detach(), self._thresholds)
            polyak_update(self._target_parameters, self._source_parameters, self.config.tau)
        else:
            self.critic_optim.step()
        return MetricStats.of(metrics, self._constraint_metrics())

    def _constraint_metrics(self) -> dict[str, float]:
        if self.episode_cost is None:
            return {}
        return per_cost("constraint/episode_cost", self.episode_cost.tolist())
