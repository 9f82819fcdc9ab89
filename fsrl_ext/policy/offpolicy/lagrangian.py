"""What SAC-Lag, DDPG-Lag and TD3-Lag share: critics, targets, multipliers, one gradient step.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action, ``C`` costs, ``E`` members of a cost
ensemble, ``S`` signals (reward first): ``1 + C``, or ``1 + C * E`` with ``cost_targets="own"``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import check_all_finite, check_fields
from fsrl_ext.functional.multiplier import lagrangian_loss
from fsrl_ext.functional.returns import ThresholdUnit
from fsrl_ext.net.critic import reduce_reward
from fsrl_ext.policy.base import (
    ConstrainedPolicy,
    MetricStats,
    PolyakAverage,
    clear_gradients,
    per_cost,
    to_device,
)
from fsrl_ext.policy.multipliers import MultiplierConfig, Multipliers
from fsrl_ext.policy.offpolicy.critics import (
    CollectCycles,
    OffpolicyConfig,
    critic_losses,
    nstep_returns,
    to_tensors,
)

MultiplierSource = Literal["episodes", "critic"]
CostTargets = Literal["shared", "own"]


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(OffpolicyConfig):
    """Settings of SAC, DDPG and TD3 that have nothing to do with a constraint."""

    cost_targets: CostTargets = "shared"
    """Members of a cost ensemble learn one target, that of their reduced estimate, or each its own: their
    spread then tells how little is known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, choices={"cost_targets": get_args(CostTargets)})


@dataclass(frozen=True, kw_only=True)
class LagrangianConfig(ActorCriticConfig, MultiplierConfig):
    """Critics, targets and multipliers of SAC-Lag, DDPG-Lag and TD3-Lag; ``docs/algorithms/lagrangian.md``.

    :raises ValueError: for values that cannot be used, naming them.
    """

    multiplier_source: MultiplierSource = "episodes"
    """What the multipliers follow: the costs of the episodes that ended since the last collect cycle, once
    per cycle, against the limit; or the critics' estimate for the policy's actions, at every actor step,
    against the discounted threshold."""
    threshold: ThresholdUnit = "paper"
    """How the cost limit becomes the critics' threshold: see ``functional.returns.cost_threshold``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            choices={
                "multiplier_source": get_args(MultiplierSource),
                "threshold": get_args(ThresholdUnit),
            },
        )

    @property
    def uses_threshold(self) -> bool:
        """Whether the discounted threshold, which takes episodes to be full length, decides anything."""
        return self.multiplier_source == "critic"


TConfig = TypeVar("TConfig", bound=LagrangianConfig)


class ActorObjective(NamedTuple):
    """What an actor step is about."""

    loss: Tensor
    """0-dim: the loss without a constraint."""
    q_cost: Tensor
    """``[C, B]``: reduced cost estimates of the actor's actions."""
    metrics: dict[str, Tensor]
    """0-dim numbers to log."""


class LagrangianPolicy(ConstrainedPolicy[TConfig]):
    """Base of the off-policy actor-critics with Lagrange multipliers for one or several costs.

    Every gradient step fits the critics of reward and costs to n-step targets and takes the actor down
    ``(loss + sum lambda Q_c) / (1 + sum lambda)``. The multipliers follow the costs of fresh episodes, once
    per collect cycle, or the critics' estimate, once per actor step. Without a finite limit the policy is the
    plain algorithm, which still learns and logs its costs.

    :param actor: see the policy.
    :param actor_optim: optimiser of the actor.
    :param critic: ``QValues = critic(obs, act)`` for reward and all costs, such as
        :class:`~fsrl_ext.net.EnsembleCritic`; it sees actions as executed.
    :param critic_optim: optimiser of the critic.
    :param action_space: a bounded ``Box``.
    :param cost_limit: undiscounted cost that an episode may have, one number or one per cost; ``inf`` for no
        constraint. It can be set anew while training.
    :param max_episode_steps: the environment's time limit, for the critics' threshold.
    :param observation_space: kept for Tianshou.
    :param lr_scheduler: called after every update.
    :param config: all other settings; a config of the plain algorithm will do without a constraint.
    :param settings: single settings by name, as in ``gamma=0.99``; they win over ``config``.
    :raises ValueError: for unusable spaces, limits or settings.
    """

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
        config: OffpolicyConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            action_space=action_space,
            observation_space=observation_space,
            lr_scheduler=lr_scheduler,
            cost_limit=cost_limit,
            num_costs=getattr(critic, "num_costs", None),
            max_episode_steps=max_episode_steps,
            config=config,
            settings=settings,
        )
        self.actor = actor
        self.actor_optim = actor_optim
        self.critic = critic
        self.critic_optim = critic_optim
        # So that no gradient step walks through the modules.
        self._actor_parameters = list(actor.parameters())
        self._critic_parameters = list(critic.parameters())
        self.target_critic = self._copy(critic)
        self._targets = PolyakAverage((self.target_critic, critic))
        self.multipliers = Multipliers(self.num_costs, self.config)
        self.episode_cost: np.ndarray | None = None
        """``[C]`` mean cost of the episodes that the multipliers saw last."""
        self._cycles = CollectCycles()
        self._set_up()

    def _set_up(self) -> None:
        """Builds what one algorithm has and the others lack; nothing, by default."""

    @abstractmethod
    def _next_action(self, obs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the actions ``[B, A]`` that targets bootstrap from, and a bonus ``[B]`` on their reward."""

    @abstractmethod
    def _actor_objective(self, obs: Tensor) -> ActorObjective:
        """Returns the loss of the actor at ``obs [B, O]``, with its graph."""

    def _actor_is_due(self) -> bool:
        """Whether this gradient step moves actor and targets."""
        return True

    def _after_actor_step(self, objective: ActorObjective) -> dict[str, Tensor]:
        """Learns what else follows from an actor step; returns 0-dim numbers to log."""
        return {}

    def _loss_multipliers(self, cost: Tensor) -> Tensor:
        """The multipliers ``[C]`` of the actor's loss, for the critics' mean estimates ``[C]``."""
        return self.multipliers.values

    @torch.no_grad()
    def process_fn(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        """Adds ``batch.returns [B, S]``, n-step targets; ``batch.obs`` and ``batch.act`` become tensors.

        The first call after a collect lets the multipliers follow the episodes that ended.

        :param buffer: a buffer of :mod:`fsrl_ext.data`.
        """
        if self._cycles.arrived(buffer):
            self._begin_cycle(buffer)
        to_tensors(batch, self.device)
        window = buffer.nstep_window(indices, self.config.estimation_step)
        next_obs = to_device(window.obs_next, self.device)
        next_act, bonus = self._next_action(next_obs)
        q = self.target_critic(next_obs, self._executed(next_act))
        # Entropy is part of the reward's value alone: costs have no bonus.
        q_reward = reduce_reward(q.reward) if bonus is None else reduce_reward(q.reward) + bonus
        q_cost = q.cost.flatten(0, 1) if self.config.cost_targets == "own" else self.config.reduce_cost(q)
        bootstrap = torch.cat([q_reward[:, None], q_cost.T], dim=1)
        batch.returns = nstep_returns(window, bootstrap, gamma=self.config.gamma)
        return batch

    def _begin_cycle(self, buffer: ReplayBuffer) -> None:
        """Lets the multipliers follow the episodes that ended; without any, the multipliers stay."""
        costs = self._cycles.episode_costs(buffer)
        if not len(costs):
            return
        self.episode_cost = costs.mean(0)
        if self.config.multiplier_source == "episodes":
            self.multipliers.update(to_device(self.episode_cost, self.device), self.cost_bound)

    def get_extra_state(self) -> dict[str, Any]:
        """What learning goes on from besides parameters and buffers, for ``state_dict``."""
        cost = self.episode_cost
        return {"cycles": self._cycles.state_dict(), "episode_cost": None if cost is None else cost.tolist()}

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self._cycles.load_state_dict(state["cycles"])
        cost = state["episode_cost"]
        self.episode_cost = None if cost is None else np.array(cost)

    def learn(self, batch: RolloutBatchProtocol, *args: Any, **kwargs: Any) -> MetricStats:
        """One gradient step of the critics and, when due, of the actor, multipliers and targets.

        Both losses are taken before either network moves, so on an accelerator the host waits once.

        :raises NonFiniteError: if a loss is not finite; no parameter has changed then.
        """
        obs, act = batch.obs, batch.act
        assert isinstance(obs, Tensor), "process_fn comes before learn"
        assert isinstance(act, Tensor), "process_fn comes before learn"
        # Regression of the critics on the n-step targets
        critic = critic_losses(self.critic(obs, self._executed(act)), batch.returns)
        losses, names = [critic.total.detach()], ["critic loss"]
        metrics, objective, actor_loss = critic.metrics(), None, None
        # Lagrangian of the actor
        if self._actor_is_due():
            objective = self._actor_objective(obs)
            cost = objective.q_cost.mean(1)
            multipliers = self._loss_multipliers(cost.detach())
            actor_loss = objective.loss
            if self.constrained:
                actor_loss = lagrangian_loss(objective.loss, cost, multipliers, rescale=self.config.rescale)
            losses.append(actor_loss.detach())
            names.append("actor loss")
            metrics |= {"loss/actor": losses[1], **objective.metrics}
            metrics |= per_cost("constraint/multiplier", multipliers)
            metrics |= per_cost("constraint/expected_cost", cost.detach())
        check_all_finite(torch.stack(losses), names)

        clear_gradients(self._critic_parameters)
        critic.total.backward()
        if objective is None or actor_loss is None:
            self.critic_optim.step()
            return MetricStats.of(metrics, self._constraint_metrics())
        clear_gradients(self._actor_parameters)
        actor_loss.backward(inputs=self._actor_parameters)
        self.critic_optim.step()
        self.actor_optim.step()
        metrics |= self._after_actor_step(objective)
        # Multipliers and targets
        if self.config.multiplier_source == "critic":
            metrics |= self.per_constraint("constraint/surplus", cost.detach() - self._thresholds)
            self.multipliers.update(cost.detach(), self._thresholds)
        self._targets.update(self.config.tau)
        return MetricStats.of(metrics, self._constraint_metrics())

    def _constraint_metrics(self) -> dict[str, float]:
        """What the newest episodes cost, and by how much they exceed what the multipliers aim at."""
        if self.episode_cost is None:
            return {}
        metrics = per_cost("constraint/episode_cost", self.episode_cost.tolist())
        if self.config.multiplier_source == "episodes":
            surplus = self.episode_cost - (1.0 - self.config.cost_margin) * np.asarray(self._cost_limit)
            metrics |= self.per_constraint("constraint/surplus", surplus.tolist())
        return metrics
