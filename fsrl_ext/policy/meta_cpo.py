"""Meta-CPO (Cho and Sun, AAAI 2024, arXiv 2312.10230): a policy that adapts to new tasks within cost limits.

Dimension letters: ``K`` inner steps, ``T`` steps of a collect, ``P`` parameters, ``C`` costs, ``m``
constraints.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn
from torch.func import functional_call

from fsrl_ext.errors import checked
from fsrl_ext.functional.conjugate_gradient import flatten, unflatten
from fsrl_ext.functional.constrained_step import ExtraConstraints, constrained_step
from fsrl_ext.functional.meta_gradient import meta_gradient, replay
from fsrl_ext.functional.multiplier import lagrangian_advantage
from fsrl_ext.functional.trust_region import LineSearchResult, SurrogateLoss, Surrogates, surrogate_gradients
from fsrl_ext.policy.base import MetricStats, per_cost, to_device
from fsrl_ext.policy.meta_adaptation import (
    MovingFisher,
    TaskOutcome,
    TaskRecord,
    adaptation_metrics,
    adaptation_step,
    meta_step_metrics,
)
from fsrl_ext.policy.meta_config import MAMLLagConfig, MetaCPOConfig
from fsrl_ext.policy.multipliers import MultiplierConfig, Multipliers
from fsrl_ext.policy.onpolicy.base import OnpolicyConfig, OnpolicyPolicy, Rollout, Trajectories
from fsrl_ext.policy.onpolicy.trust_region import (
    CostChanges,
    check_extra_constraints,
    mean_kl,
    measured,
    search_along,
    surrogate_loss,
)


class MetaCPOPolicy(OnpolicyPolicy[MetaCPOConfig]):
    """Meta-CPO as a Tianshou policy.

    The policy acts with a copy of the meta-policy. ``update`` on the data of a task moves that copy by one
    inner step, so any on-policy trainer can adapt the policy; the meta-parameters stay as they are.
    For each task of a meta-iteration, :class:`~fsrl_ext.trainer.MetaTrainer` calls :meth:`begin_task`,
    ``update`` after each of K collects, and :meth:`finish_task` after one collect more. At the end of the
    meta-iteration it calls :meth:`meta_step`.

    The critic of a task starts from a critic that all tasks share. It is fitted to the data of each collect
    before it estimates their advantages, or afterwards (``fit_critic_first=False``).

    With a :class:`~fsrl_ext.policy.MAMLLagConfig`, Lagrange multipliers weight the costs in the objective and
    no step has a constraint. With a :class:`~fsrl_ext.policy.MAMLConfig` and without a finite limit, the
    policy is MAML with TRPO's steps.

    :param extra_constraints: further convex sets for inner steps and meta-steps, see
        :func:`~fsrl_ext.functional.constrained_step.constrained_step`; they need
        ``step_backend="cvxpylayers"``.

    :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy` and :class:`MetaCPOConfig` describe the other
    parameters. ``actor`` and ``critic`` become the acting copies, and ``critic_optim`` moves ``critic``.
    """

    config_type = MetaCPOConfig
    other_config_types = (MAMLLagConfig,)
    takes_discrete_actions = False

    @checked(at_least_one=("max_episode_steps", "obs_dim"), own=("config", "cost_limit"))
    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module,
        critic_optim: torch.optim.Optimizer,
        action_space: gym.Space,
        cost_limit: float | Sequence[float],
        max_episode_steps: int,
        obs_dim: int | None = None,
        observation_space: gym.Space | None = None,
        lr_scheduler: TLearningRateScheduler | None = None,
        extra_constraints: ExtraConstraints | None = None,
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
        check_extra_constraints(extra_constraints, self.config.step_backend)
        self.extra_constraints = extra_constraints

    def _set_up(self) -> None:
        self.meta_actor = deepcopy(self.actor)
        self.meta_critic = deepcopy(self.critic).requires_grad_(False)
        self.multipliers: Multipliers | None = None
        if isinstance(self.config, MultiplierConfig):
            self.multipliers = Multipliers(self.num_costs, self.config)
        self._changes = {room: CostChanges(room) for room in ("adaptation", "constraint")}
        self._judged: Trajectories | None = None
        self.record: TaskRecord | None = None
        """Record of the current task; ``None`` without ``begin_task(record=True)``."""
        self.finished: list[TaskRecord] = []
        """Records of the tasks that were finished since the last meta-step."""

    def get_extra_state(self) -> dict[str, Any]:
        """Returns mean cost and length of the newest episodes, and the last changes of that cost."""
        return {
            **super().get_extra_state(),
            "changes": {room: changes.state_dict() for room, changes in self._changes.items()},
        }

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        super()._load_progress(state)
        for room, changes in state.get("changes", {}).items():  # runs of version 0.1.0 have none
            self._changes[room].load_state_dict(changes)

    def begin_task(self, *, record: bool = False) -> None:
        """Resets the acting copies to the meta-policy and the shared critic.

        :param record: whether to record the adaptation that follows, for :meth:`meta_step`.
        """
        self.actor.load_state_dict(self.meta_actor.state_dict())
        self.critic.load_state_dict(self.meta_critic.state_dict())
        # The optimiser's moments belong to the critic of the last task.
        self.critic_optim.state.clear()
        self._changes["adaptation"].forget_open()
        self.record = TaskRecord() if record else None

    def forget_tasks(self) -> None:
        """Drops the records of the finished tasks and of the current one, and resets the acting copies."""
        self.finished = []
        self.begin_task()

    def _prepare_critic(self, data: Trajectories) -> None:
        """Fits the critic to the data before it estimates advantages, because it may not know this task."""
        self._judged = data
        if self.config.fit_critic_first:
            self._fit_to_judged()

    def _fit_to_judged(self) -> None:
        """Fits the critic to the data of the newest collect."""
        data = self._judged
        assert data is not None, "process_fn comes before learn"
        with torch.no_grad():
            # With lambda = 1 only the ends of the data bootstrap from the critic.
            returns = self._advantages(data, 1.0, 1.0).returns
        with torch.enable_grad():
            self._fit_critic(data.obs, returns, batch_size=256, repeat=10)

    def learn(self, batch: RolloutBatchProtocol, *args: Any, **kwargs: Any) -> MetricStats:
        """Makes one inner step of the acting copy.

        :param batch: what :meth:`process_fn` returned, which by default has fitted the critic already.
        :raises NonFiniteError: if the data or a gradient is not finite; the actor has not changed then.
        """
        # Inner step on the data of the acting copy
        metrics = self._update_actor(self._rollout(batch), None, 1)
        # Critic
        if not self.config.fit_critic_first:
            self._fit_to_judged()
        # Observations, for the statistics that the meta-step updates
        if self.record is not None:
            assert isinstance(batch.obs, Tensor)
            self.record.observations.append(batch.obs)
        return MetricStats.of({}, metrics)

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        # What became of the step before
        metrics = self._changes["adaptation"].play(self.episode_cost)
        # Surrogates, surplus and metric of the step
        loss, surplus = self._problem(rollout)
        metric = self._metric(self.actor, [rollout])
        # Constrained step and line search
        step, search = adaptation_step(
            self.actor,
            rollout,
            loss,
            surplus,
            config=self.config,
            metric=metric,
            extra_constraints=self.extra_constraints,
        )
        # Record for the meta-gradient
        if self.record is not None:
            self.record.steps.append(step)
            self.record.rollouts.append(rollout)
        if self.multipliers is None:
            change = self.episode_length * np.subtract(search.after.costs, search.before.costs)
            metrics |= self._changes["adaptation"].predict(self.episode_cost, change)
        return metrics | adaptation_metrics(step, search, self.episode_cost)

    def _problem(self, rollout: Rollout) -> tuple[SurrogateLoss, Tensor]:
        """Returns the surrogates of a rollout, and its surplus over each constraint per step, ``[m]``.

        With Lagrange multipliers m is 0, and the multipliers enter the reward surrogate.
        """
        advantages = rollout.advantages - rollout.advantages.mean(0)
        deviation = advantages.std(0, correction=0) + 1e-8 * self.signal_scale
        if self.multipliers is not None:
            standard, rescale = advantages / deviation, self.multipliers.config.rescale
            advantage = lagrangian_advantage(standard, self.multipliers.values, rescale=rescale)
            no_costs = advantage.new_zeros(0, len(advantage))
            return surrogate_loss(self.actor, rollout, advantage, no_costs), no_costs[:, 0]
        # The step does not depend on the scale of the reward. Costs keep the scale of the surplus.
        loss = surrogate_loss(self.actor, rollout, advantages[:, 0] / deviation[0], advantages[:, 1:].T)
        return loss, self._step_surplus()

    def _metric(self, actor: nn.Module, rollouts: list[Rollout]) -> MovingFisher | None:
        """Returns the metric of an actor on data; ``None`` for the identity."""
        return MovingFisher(actor, rollouts, self.config) if self.config.metric == "fisher" else None

    def finish_task(self, buffer: ReplayBuffer) -> None:
        """Finishes the record of the current task: surrogates of the adapted copy, gradients in theta.

        :param buffer: data that the adapted copy collected after the last update.
        :raises RuntimeError: without ``begin_task(record=True)`` and K updates before.
        :raises NonFiniteError: if the data are not finite.
        """
        record = self.record
        if record is None or len(record.steps) != self.config.inner_steps:
            raise RuntimeError(
                f"finish_task needs begin_task(record=True) and {self.config.inner_steps} updates before, "
                f"got {0 if record is None else len(record.steps)} updates"
            )
        batch, indices = buffer.sample(0)
        batch = self.process_fn(batch, buffer, indices)
        assert isinstance(batch.obs, Tensor)
        record.observations.append(batch.obs)
        self._changes["adaptation"].play(self.episode_cost)
        rollout = self._rollout(batch)
        if not self.config.fit_critic_first:
            self._fit_to_judged()
        record.outcome = self._task_outcome(rollout, record)
        self.finished.append(record)
        self.begin_task()

    def _task_outcome(self, rollout: Rollout, record: TaskRecord) -> TaskOutcome:
        """Returns the result of a task from a rollout of the adapted copy."""
        # Gradients at the adapted parameters
        loss, surplus = self._problem(rollout)
        g, a, _ = surrogate_gradients(loss, flatten(self.actor.parameters()).detach())
        gradients, cosine, corners = torch.cat([g[None], a]), math.nan, 0
        cases: Counter[str] = Counter()
        # Gradients carried back through the inner steps to the meta-parameters
        if record.steps:
            meta = meta_gradient(
                gradients,
                record.steps,
                mode=self.config.meta_gradient,
                limit_gradient=self.config.limit_gradient,
            )
            gradients, cosine, cases = meta.gradients, float(meta.cosine[0]), meta.cases
            corners = sum(meta.corners.values())
        return TaskOutcome(
            gradients=gradients,
            surplus=surplus,
            loss=loss,
            last=rollout,
            episode_cost=self.episode_cost,
            episode_length=self.episode_length,
            critic=[x.detach().clone() for x in self.critic.parameters()],
            cosine=cosine,
            cases=cases,
            corners=corners,
        )

    def meta_step(self) -> dict[str, float]:
        """Makes one constrained step of the meta-policy, on the tasks finished since the last meta-step.

        The line search accepts a step if the meta-policy stays within its trust region on the data that it
        collected itself, and if the policies that are adapted again from the new meta-parameters, on the
        stored data, raise the reward surrogate and keep the cost surrogates within the limits
        (:func:`~fsrl_ext.policy.onpolicy.trust_region.search_along`). If it accepts nothing, the
        meta-parameters stay as they were, bit for bit. In either case the observations' statistics, the
        shared critic and the multipliers are updated.

        :return: numbers to log.
        :raises RuntimeError: if no task was finished.
        :raises NonFiniteError: if a gradient is not finite; the meta-policy has not changed then.
        """
        if not self.finished:
            raise RuntimeError("meta_step needs finish_task before it, got no finished task")
        records, self.finished = self.finished, []
        outcomes = [x.finished for x in records]
        config, parameters = self.config, list(self.meta_actor.parameters())
        each = config.outer_constraint == "each"

        # Gradients and surplus over all tasks, and the metric of the meta-policy
        g = torch.stack([x.gradients[0] for x in outcomes]).mean(0)
        a = torch.stack([x.gradients[1:] for x in outcomes])
        b = torch.stack([x.surplus for x in outcomes])
        a, b = (a.flatten(0, 1), b.flatten()) if each else (a.mean(0), b.mean(0))
        firsts = [x.first for x in records]
        metric = self._metric(self.meta_actor, firsts)
        inverse = None if metric is None else metric.inverse(flatten(parameters))

        # The constrained step
        step = constrained_step(
            g,
            a,
            b,
            kl_bound=config.outer_kl_bound,
            inverse_metric=inverse,
            backend=config.step_backend,
            extra_constraints=self.extra_constraints,
        )

        # The line search, which adapts all policies again for every length of the step
        def evaluate() -> Surrogates:
            theta = flatten(parameters)
            values = [x.finished.loss(self._adapted(theta, x)) for x in records]
            costs = torch.stack([c for _, c in values])
            costs = costs.flatten() if each else costs.mean(0)
            reward = -torch.stack([f for f, _ in values]).mean()
            return measured(reward, costs, mean_kl(self.meta_actor, firsts))

        search = search_along(parameters, step, evaluate, b, kl_bound=config.outer_kl_bound, config=config)

        # What became of the last meta-step, and what this one predicts
        metrics = meta_step_metrics(step, search, b, outcomes) | self._cost_changes(search, outcomes)
        # Statistics, shared critic and multipliers
        metrics |= self._update_shared(records)
        metrics["meta/adapted_kl"] = self._adapted_kl(flatten(parameters).detach(), records)
        self.begin_task()
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _cost_changes(self, search: LineSearchResult, outcomes: list[TaskOutcome]) -> dict[str, float]:
        """Compares the last meta-step's prediction with the adapted policies' costs, and keeps the new one.

        Both are means over the tasks. The tasks of two meta-iterations differ, and so do their costs.
        """
        if self.multipliers is not None:
            return {}
        cost = np.mean([x.episode_cost for x in outcomes], axis=0)
        change = np.subtract(search.after.costs, search.before.costs).reshape(-1, self.num_costs)
        lengths = np.array([x.episode_length for x in outcomes])
        # One row for the mean over the tasks, or one row per task
        change = (lengths[:, None] * change).mean(0)
        metrics = self._changes["constraint"].play(cost)
        return metrics | self._changes["constraint"].predict(cost, change)

    @torch.no_grad()
    def _adapted_kl(self, theta: Tensor, records: list[TaskRecord]) -> float:
        """Returns the mean KL divergence of the adapted policies from those that are adapted again.

        :param theta: ``[P]`` meta-parameters after the meta-step, from which policies are adapted again.
        """
        like = {name: x.detach() for name, x in self.meta_actor.named_parameters()}
        divergences = []
        for record in records:
            adapted = partial(functional_call, self.meta_actor, unflatten(self._adapted(theta, record), like))
            divergences.append(float(mean_kl(adapted, [record.finished.last])))
        return float(np.mean(divergences))

    def _adapted(self, theta: Tensor, record: TaskRecord) -> Tensor:
        """Returns the parameters ``[P]`` adapted again from meta-parameters ``theta [P]``, on stored data."""
        return replay(theta, record.steps, limit_gradient=self.config.limit_gradient).detach()

    @torch.no_grad()
    def _update_shared(self, records: list[TaskRecord]) -> dict[str, float]:
        """Updates what all tasks share from their data; returns numbers to log."""
        outcomes = [x.finished for x in records]
        # Observation statistics
        if self.normaliser is not None:
            self.normaliser.update(torch.cat([obs for x in records for obs in x.observations]))
        # Shared critic: the mean of the tasks' critics
        copies = zip(*(x.critic for x in outcomes), strict=True)
        for parameter, of_tasks in zip(self.meta_critic.parameters(), copies, strict=True):
            parameter.copy_(torch.stack(of_tasks).mean(0))
        # Multipliers
        cost = np.mean([x.episode_cost for x in outcomes], axis=0)
        metrics = per_cost("constraint/episode_cost", cost.tolist())
        if self.multipliers is not None:
            bound = self.cost_bound
            self.multipliers.update(to_device(cost, self.device), bound, self.cost_unit(self.step_scale))
            metrics |= per_cost("constraint/multiplier", self.multipliers.values.tolist())
            surplus = to_device(cost, self.device) - bound
            metrics |= self.per_constraint("constraint/surplus", surplus.tolist())
        return metrics
