"""The base of SAC-Lag, DDPG-Lag and TD3-Lag: settings, targets, multipliers and the gradient step.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action, ``C`` costs, ``E`` members of a cost
ensemble, ``S`` signals (reward first): ``1 + C``, or ``1 + C * E`` with ``cost_targets="own"``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, get_args

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.errors import check_all_finite, check_fields, checked
from fsrl_ext.functional.multiplier import lagrangian_loss
from fsrl_ext.net.values import reduce_reward
from fsrl_ext.policy.base import (
    ConstrainedPolicy,
    MetricStats,
    PolyakAverage,
    check_cost_buffer,
    clear_gradients,
    frozen,
    per_cost,
    to_device,
)
from fsrl_ext.policy.multipliers import MultiplierConfig, Multipliers
from fsrl_ext.policy.offpolicy.cost_level import LEVEL_STATES, CostLevel, CriticLevel
from fsrl_ext.policy.offpolicy.critics import (
    CostLevelConfig,
    OffpolicyConfig,
    critic_losses,
    hand_back_priorities,
    importance_weights,
    nstep_returns,
    nstep_windows,
    to_tensors,
)
from fsrl_ext.policy.offpolicy.replay import newest_places

MultiplierSource = Literal["episodes", "critic"]
CostTargets = Literal["shared", "own"]


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(OffpolicyConfig):
    """Settings of SAC, DDPG and TD3 that do not depend on a constraint.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    cost_targets: CostTargets = "shared"
    """Targets of the members of a cost ensemble: one ``shared`` target from the ensemble's estimate, or for
    each member its ``own``, so that the spread of the members measures the uncertainty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, choices={"cost_targets": get_args(CostTargets)})


@dataclass(frozen=True, kw_only=True)
class LagrangianConfig(ActorCriticConfig, CostLevelConfig, MultiplierConfig):
    """Settings of the constraint of SAC-Lag, DDPG-Lag and TD3-Lag; ``docs/algorithms/multipliers.md``.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    cost_margin: float = 0.05
    """Share of each cost limit that the multipliers keep free, in [0, 1). The newest policy's cost differs by
    some percent from the mean that the multipliers hold."""
    multiplier_source: MultiplierSource = "episodes"
    """Cost that the multipliers compare with its limit: of the ``episodes`` that ended in the newest collect,
    once per collect; or the episode cost that the ``critic`` expects, at every actor step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            choices={"multiplier_source": get_args(MultiplierSource)},
        )

    @property
    def follows_critic(self) -> bool:
        """Whether multipliers depend on what the critics expect."""
        return self.multiplier_source == "critic"

    @property
    def uses_threshold(self) -> bool:
        """Whether learning depends on the discounted threshold, which assumes episodes of full length."""
        return self.follows_critic and self.cost_level == "critic"


TConfig = TypeVar("TConfig", bound=LagrangianConfig)


class ActorObjective(NamedTuple):
    """The actor's loss without a constraint, and the costs that the critics expect of its actions."""

    loss: Tensor
    """0-dim, with its graph: the loss without a constraint, in units of the reward's scale."""
    q_cost: Tensor
    """``[C, B]``, with their graph: one estimate per cost of the actor's actions, in units of the scales."""
    metrics: dict[str, Tensor]
    """0-dim numbers to log."""


class LagrangianPolicy(ConstrainedPolicy[TConfig]):
    """Base class of the off-policy actor-critics with Lagrange multipliers for one or several costs.

    Every gradient step fits the critics of reward and costs to n-step targets and moves the actor down the
    gradient of ``(loss + sum lambda Q_c) / (1 + sum lambda)``. The multipliers follow the costs of fresh
    episodes, once per collect, or the critics' estimate, once per actor step. Without a finite limit the
    policy is the plain algorithm, whose critics still learn the costs.

    :param actor: the actor, as the subclass describes it.
    :param actor_optim: optimiser of the actor.
    :param critic: ``QValues = critic(obs, act)`` for reward and all costs, such as
        :class:`~fsrl_ext.net.EnsembleCritic`; it sees actions as executed.
    :param critic_optim: optimiser of the critic.
    :param action_space: a bounded ``Box``.
    :param cost_limit: largest cost of an episode in ``limit_unit``, >= 0, one number or one per cost; ``inf``
        for no constraint. The attribute can be set while training.
    :param max_episode_steps: the environment's time limit in steps, for the critics' threshold.
    :param observation_space: passed on to Tianshou's ``BasePolicy``.
    :param lr_scheduler: Tianshou steps it after every update.
    :param config: all other settings; ``None`` for their defaults. A config of the plain algorithm leaves the
        settings of the constraint at their defaults.
    :param settings: single settings by name, as in ``gamma=0.99``, which replace those of ``config``.
    :raises ValueError: for a space, limit or setting that the policy cannot use.
    :raises TypeError: for a config of another class, or a setting that does not exist.
    """

    @checked(at_least_one=("max_episode_steps",), own=("config", "cost_limit"))
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
        # A walk through the modules at every gradient step would take longer than reading these lists.
        self._actor_parameters = list(actor.parameters())
        self._critic_parameters = list(critic.parameters())
        moved_by_actor = {id(x) for x in self._actor_parameters}
        self._critic_alone = [x for x in self._critic_parameters if id(x) not in moved_by_actor]
        self.target_critic = self._copy(critic)
        self._targets = PolyakAverage((self.target_critic, critic))
        self.multipliers = Multipliers(self.num_costs, self.config)
        self.data = self.config.statistics(self.num_costs)
        """Scales, bounds and episode costs that were measured in the buffer."""
        self.level = CriticLevel(measured=not self.config.uses_threshold)
        """Episode cost that the critics' level stands for, held against measured costs."""
        self._expected = CostLevel(rate=1.0)
        self._level_unit = float(self.discounted([1.0] * self.num_costs)[0])
        self.cost_bias: Tensor
        """``[C]`` measured episode cost less the critics', which critic-driven multipliers add to it."""
        self.register_buffer("cost_bias", torch.zeros(self.num_costs), persistent=False)
        self._set_up()

    needs_states_between: ClassVar[bool] = False
    """Whether the targets depend on the states between the first and the last one of an n-step window."""

    @property
    def episode_cost(self) -> np.ndarray | None:
        """``[C]`` mean cost of the newest finished episodes; ``None`` before the first ones."""
        return self.data.episode_cost

    def _set_up(self) -> None:
        """Builds the parts that only one algorithm has; the constructor calls it last."""

    @abstractmethod
    def _next_action(self, obs: Tensor, between: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns the actions ``[B, A]`` whose values the targets bootstrap from.

        :param obs: ``[B, O]``, the states after the n-step windows.
        :param between: ``[K - 1, B, O]``, the states after all other steps of the windows, or ``None`` unless
            :attr:`needs_states_between`.
        :return: the actions, and ``None`` or a bonus ``[K, B]`` on the reward of the states ``between`` and
            ``obs``, in this order.
        """

    @abstractmethod
    def _actor_objective(self, obs: Tensor) -> ActorObjective:
        """Returns the loss and the costs of the actor's actions at ``obs [B, O]``."""

    def _actor_is_due(self) -> bool:
        """Says whether this gradient step moves actor and targets; each gradient step calls it once."""
        return True

    def _after_actor_step(self, objective: ActorObjective) -> dict[str, Tensor]:
        """Makes further updates after an actor step; returns 0-dim numbers to log."""
        return {}

    def _loss_multipliers(self, cost: Tensor) -> Tensor:
        """Returns the multipliers ``[C]`` of the actor's loss.

        :param cost: ``[C]`` episode cost that the critics expect of the actor's actions.
        """
        return self.multipliers.values

    @torch.no_grad()
    def process_fn(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        """Adds the n-step targets ``batch.returns [B, S]``; ``batch.obs`` and ``batch.act`` become tensors.

        The first call after a collect begins a cycle, in which the multipliers move by the episodes that
        ended.

        :param buffer: a buffer of :mod:`fsrl_ext.data`.
        :param indices: ``[B]`` places of the batch in the buffer.
        :raises TypeError: if the buffer does not store costs.
        """
        check_cost_buffer(buffer)
        if self.data.arrived(buffer):
            self._begin_cycle(buffer)
        to_tensors(batch, self.data)
        windows = nstep_windows(buffer, indices, self.config)
        window, size = windows[0], len(indices)
        next_obs = self.data.observations(to_device(window.obs_next, self.device))
        between = None
        if self.needs_states_between:
            between = to_device(buffer.obs_next[window.places[:-1]], self.device)
            between = self.data.observations(between.flatten(0, 1)).view_as(between)
        next_act, bonus = self._next_action(next_obs, between)
        for of_costs in windows[1:]:
            obs_after = self.data.observations(to_device(of_costs.obs_next, self.device))
            act_after, _ = self._next_action(obs_after, None if between is None else obs_after[:0, None])
            next_obs, next_act = torch.cat([next_obs, obs_after]), torch.cat([next_act, act_after])
        q = self.target_critic(next_obs, self._executed(next_act))
        q_cost = q.cost.flatten(0, 1) if self.config.cost_targets == "own" else self.config.reduce_cost(q)
        bootstrap = torch.cat([reduce_reward(q.reward)[:size, None], q_cost[:, -size:].T], dim=1)
        batch.returns = nstep_returns(windows, bootstrap, config=self.config, data=self.data, bonus=bonus)
        return batch

    def _begin_cycle(self, buffer: ReplayBuffer) -> None:
        """Measures the newest data, and moves the multipliers by the costs of the episodes that ended.

        If no episode ended, the multipliers stay.
        """
        # Scales of the signals, and costs of the newest episodes
        costs, _ = self.data.measure(buffer)
        expected = self._expected.restart()
        if not len(costs):
            return
        cost = torch.as_tensor(costs.mean(0), dtype=torch.float32)
        # The level of the critics at the newest states, and in the updates of the last cycle
        obs = to_device(buffer.obs[newest_places(buffer, self.max_episode_steps, LEVEL_STATES)], self.device)
        act = self._executed(self._act(obs, None, explore=True)[0])
        q_cost = self.config.reduce_cost(self.target_critic(self.data.observations(obs), act))
        level = self._episode_units(q_cost.mean(1)).cpu()
        self.level.compare(level.numpy(), cost.numpy(), self.cost_limit)
        if expected is not None and self.config.cost_level == "measured":
            bias = cost.to(self.device) - self._episode_units(expected.to(self.cost_bias))
            self.cost_bias.lerp_(bias, len(costs) / (len(costs) + self.config.cost_level_episodes))
        # Multipliers
        if self.config.multiplier_source == "episodes":
            self._move_multipliers(cost.to(self.device))

    def _episode_units(self, q_cost: Tensor) -> Tensor:
        """Converts means of the critics' values ``[C]`` to the episode cost that they stand for."""
        return q_cost * self.data.signal_scale[1:] / self._level_unit

    def _move_multipliers(self, cost: Tensor) -> None:
        """Moves the multipliers by an episode cost ``[C]`` in the unit of the limits."""
        self.multipliers.update(cost, self.cost_bound, self.cost_unit(self.data.step_scale))

    def get_extra_state(self) -> dict[str, Any]:
        """Returns what was measured in the buffer, and the level of the critics."""
        return {
            "units": self.data.units(),
            "data": self.data.progress(),
            "level": self.level.state_dict(),
            "expected": self._expected.state_dict(),
            "cost_bias": self.cost_bias.tolist(),
        }

    def _load_units(self, state: Mapping[str, Any]) -> None:
        self.data.load_units(state)

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        self.data.load_progress(state["data"])
        self.level.load_state_dict(state["level"])
        self._expected.load_state_dict(state["expected"])
        self.cost_bias.copy_(torch.tensor(state["cost_bias"]))

    def learn(self, batch: RolloutBatchProtocol, *args: Any, **kwargs: Any) -> MetricStats:
        """Takes one gradient step of the critics and, if it is due, one of actor, multipliers and targets.

        Both losses are computed before either network moves, so on an accelerator the host waits once.

        :param batch: what :meth:`process_fn` returned.
        :raises NonFiniteError: if a loss is not finite; no parameter has changed then.
        """
        obs, act = batch.obs, batch.act
        assert isinstance(obs, Tensor), "process_fn comes before learn"
        assert isinstance(act, Tensor), "process_fn comes before learn"
        # Critic loss: regression on the n-step targets
        critic = critic_losses(
            self.critic(obs, self._executed(act)), batch.returns, importance_weights(batch, self.device)
        )
        hand_back_priorities(batch, critic)
        losses, names = [critic.total], ["critic loss"]
        metrics, objective, actor_loss = critic.metrics(self.data), None, None
        # Actor loss: Lagrangian of reward and costs
        if self._actor_is_due():
            with frozen(self._critic_alone):
                objective = self._actor_objective(obs)
            q_cost = objective.q_cost.mean(1)
            cost = self._episode_units(q_cost.detach()) + self.cost_bias
            multipliers = self._loss_multipliers(cost)
            actor_loss = objective.loss
            if self.constrained:
                actor_loss = lagrangian_loss(objective.loss, q_cost, multipliers, rescale=self.config.rescale)
            losses.append(actor_loss.detach())
            names.append("actor loss")
            metrics |= {"loss/actor": losses[1], **objective.metrics}
            metrics |= per_cost("constraint/multiplier", multipliers)
            metrics |= per_cost("constraint/expected_cost", cost)
        check_all_finite(torch.stack(losses), names)

        # Gradient steps; both gradients are taken before either network moves
        clear_gradients(self._critic_parameters)
        critic.backward()
        if objective is None or actor_loss is None:
            self.critic_optim.step()
            return MetricStats.of(metrics, self._constraint_metrics())
        clear_gradients(self._actor_parameters)
        actor_loss.backward(inputs=self._actor_parameters)
        self.critic_optim.step()
        self.actor_optim.step()
        metrics |= self._after_actor_step(objective)
        # Multipliers that follow the critics, and target networks
        if self.config.follows_critic:
            self._expected.add(q_cost.detach())
        if self.config.multiplier_source == "critic":
            metrics |= self.per_constraint("constraint/surplus", cost - self.cost_bound)
            self._move_multipliers(cost)
        self._targets.update(self.config.tau)
        return MetricStats.of(metrics, self._constraint_metrics())

    def _constraint_metrics(self) -> dict[str, float]:
        """Returns numbers to log: costs of the newest episodes, and their surplus if multipliers use it."""
        if self.episode_cost is None:
            return {}
        metrics = per_cost("constraint/episode_cost", self.episode_cost.tolist())
        if self.level.value is not None:
            metrics |= per_cost("constraint/critic_level", self.level.value.tolist())
        if self.config.multiplier_source == "episodes":
            surplus = self.episode_cost - (1.0 - self.config.cost_margin) * np.asarray(self._cost_limit)
            metrics |= self.per_constraint("constraint/surplus", surplus.tolist())
        return metrics
