"""Meta-CPO (Cho and Sun, AAAI 2024, arXiv 2312.10230): a policy that adapts to new tasks within its limits.

Dimension letters: ``M`` tasks, ``K`` inner steps, ``T`` steps, ``P`` parameters, ``C`` costs, ``m``
constraints, ``S = 1 + C`` signals (reward first).
"""

from __future__ import annotations

import math
from collections import Counter
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from tianshou.data import ReplayBuffer
from tianshou.data.types import RolloutBatchProtocol
from torch import Tensor, nn
from torch.func import functional_call

from fsrl_ext.functional.conjugate_gradient import flatten, unflatten
from fsrl_ext.functional.constrained_step import Case, constrained_step
from fsrl_ext.functional.meta_gradient import (
    InnerStep,
    SurrogateLoss,
    meta_gradient,
    replay,
    surrogate_gradients,
)
from fsrl_ext.functional.multiplier import lagrangian_advantage
from fsrl_ext.functional.trust_region import LineSearchResult, Rejection, Surrogates
from fsrl_ext.policy.meta_config import MetaCPOConfig
from fsrl_ext.policy.metrics import MetricStats, per_cost
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Rollout, Trajectories
from fsrl_ext.policy.onpolicy.surrogates import MovingFisher, mean_kl, surrogate_loss
from fsrl_ext.policy.onpolicy.trust_region import constrained_update, measured, search_along
from fsrl_ext.policy.optimise import to_device


class TaskOutcome(NamedTuple):
    """What the meta-step needs of one task."""

    gradients: Tensor
    """``[1 + m, P]`` at the meta-parameters: of the negative reward surrogate and the cost surrogates after
    the adaptation."""
    surplus: Tensor
    """``[m]`` after the adaptation."""
    steps: list[InnerStep]
    loss: SurrogateLoss
    """Surrogates of the data after the adaptation."""
    first: Rollout
    """The meta-policy's own data."""
    last: Rollout
    """The adapted policy's."""
    episode_cost: np.ndarray
    """``[C]`` after the adaptation."""
    cosine: float
    """Between the first-order and the exact gradient of the reward; NaN where there is none."""
    cases: Counter[str]
    corners: int


class MetaCPOPolicy(OnpolicyPolicy[MetaCPOConfig]):
    """Meta-CPO as a Tianshou policy.

    It acts with a copy of the meta-policy, and ``update`` on the data of a task is one constrained step of
    that copy: any on-policy trainer adapts it, and the meta-parameters never change meanwhile.
    :class:`~fsrl_ext.trainer.MetaTrainer` calls, for each task of a meta-iteration, :meth:`begin_task`,
    ``update`` after each of K collects, and :meth:`finish_task` after one more; then :meth:`meta_step`.

    The critic of a task starts from a shared one and is fitted to the task's data before it judges it.

    The arguments are those of :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy`; ``critic_optim`` is
    about the critic given, which is the acting copy's.
    """

    config_type = MetaCPOConfig

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.meta_actor = deepcopy(self.actor)
        self.meta_critic = deepcopy(self.critic).requires_grad_(False)
        self.multipliers: Multipliers | None = None
        if self.config.constraint == "multiplier":
            self.multipliers = Multipliers(len(self.cost_limit), self.config)
        self._recording = False
        self._steps: list[InnerStep] = []
        self._rollouts: list[Rollout] = []
        self._outcomes: list[TaskOutcome] = []
        self._observations: list[Tensor] = []
        self._critics: list[list[Tensor]] = []

    def begin_task(self, *, record: bool = False) -> None:
        """Acts as the meta-policy again, with the shared critic.

        :param record: keep what :meth:`meta_step` needs of the adaptation that follows.
        """
        self.actor.load_state_dict(self.meta_actor.state_dict())
        self.critic.load_state_dict(self.meta_critic.state_dict())
        # Moments belong to the critic of the task before.
        self.critic_optim.state.clear()
        self._episodes = type(self._episodes)()
        self._recording = record
        self._steps, self._rollouts = [], []

    def forget_tasks(self) -> None:
        """Drops what was recorded since the last :meth:`meta_step`, finished tasks and the open one."""
        self._outcomes, self._observations, self._critics = [], [], []
        self.begin_task()

    def _prepare_critic(self, data: Trajectories) -> None:
        """Fits the critic to returns that it bootstraps at cuts alone: it never saw this task."""
        with torch.enable_grad():
            returns = self._advantages(data, 1.0, 1.0).returns.detach()
            self._fit_critic(data.obs, returns, batch_size=256, repeat=10)  # L-BFGS takes all data at once

    def learn(self, batch: RolloutBatchProtocol, *args: Any, **kwargs: Any) -> MetricStats:
        """One step of the adaptation, taken by the acting copy.

        :raises NonFiniteError: if the data or a gradient is not finite.
        """
        metrics = self._update_actor(self._rollout(batch), None, 1)
        if self._recording:
            assert isinstance(batch.obs, Tensor)
            self._observations.append(batch.obs)
        return MetricStats.of({}, metrics)

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        step, search = self._adapt(rollout)
        if self._recording:
            self._steps.append(step)
            self._rollouts.append(rollout)
        return {
            "adaptation/fraction": search.fraction,
            "adaptation/kl": search.after.kl,
            "adaptation/lambda": step.step.multiplier_kl,
            "adaptation/improvement": search.after.reward - search.before.reward,
            **{f"adaptation/case_{x}": float(step.step.case == x) for x in get_args(Case)},
            **per_cost("adaptation/episode_cost", self.episode_cost.tolist()),
        }

    def _problem(self, rollout: Rollout) -> tuple[SurrogateLoss, Tensor]:
        """Surrogates of a rollout, and by how much it exceeds each constraint per step, ``[m]``."""
        advantages = rollout.advantages - rollout.advantages.mean(0)
        deviation = advantages.std(0, correction=0) + 1e-8
        if self.multipliers is not None:
            standard = advantages / deviation
            advantage = lagrangian_advantage(standard, self.multipliers.values, rescale=self.config.rescale)
            none = advantage.new_zeros(0, len(advantage))
            return surrogate_loss(self.actor, rollout, advantage, none), none[:, 0]
        # The step does not feel the reward's scale; costs keep theirs, which is that of the surplus.
        loss = surrogate_loss(self.actor, rollout, advantages[:, 0] / deviation[0], advantages[:, 1:].T)
        return loss, self._surplus(self.config.cost_margin)

    def _adapt(self, rollout: Rollout) -> tuple[InnerStep, LineSearchResult]:
        """A constrained step of the acting copy, shortened until it keeps its promises."""
        loss, surplus = self._problem(rollout)
        metric = self._metric(self.actor, [rollout])
        return constrained_update(self.actor, rollout, loss, surplus, config=self.config, metric=metric)

    def _metric(self, actor: nn.Module, rollouts: list[Rollout]) -> MovingFisher | None:
        """The metric of an actor on data; ``None`` for the identity."""
        return MovingFisher(actor, rollouts, self.config) if self.config.metric == "fisher" else None

    def finish_task(self, buffer: ReplayBuffer) -> None:
        """Judges the adapted copy by its own data and carries the gradients back to the meta-parameters.

        :raises RuntimeError: without ``begin_task(record=True)`` and K updates before.
        """
        if not self._recording or len(self._steps) != self.config.inner_steps:
            raise RuntimeError(
                f"finish_task needs begin_task(record=True) and {self.config.inner_steps} updates before, "
                f"got {len(self._steps)} updates"
            )
        batch, indices = buffer.sample(0)
        batch = self.process_fn(batch, buffer, indices)
        rollout = self._rollout(batch)
        loss, surplus = self._problem(rollout)
        g, a, _ = surrogate_gradients(loss, flatten(self.actor.parameters()).detach())
        gradients, cosine, corners = torch.cat([g[None], a]), math.nan, 0
        cases: Counter[str] = Counter()
        if self._steps:
            found = meta_gradient(
                gradients,
                self._steps,
                mode=self.config.meta_gradient,
                limit_gradient=self.config.limit_gradient,
            )
            gradients, cosine, cases = found.gradients, float(found.cosine[0]), found.cases
            corners = sum(found.corners.values())
        assert isinstance(batch.obs, Tensor)
        self._observations.append(batch.obs)
        self._critics.append([x.detach().clone() for x in self.critic.parameters()])
        self._outcomes.append(
            TaskOutcome(
                gradients=gradients,
                surplus=surplus,
                steps=self._steps,
                loss=loss,
                first=(self._rollouts or [rollout])[0],
                last=rollout,
                episode_cost=self.episode_cost,
                cosine=cosine,
                cases=cases,
                corners=corners,
            )
        )
        self.begin_task()

    def meta_step(self) -> dict[str, float]:
        """One constrained step of the meta-policy on the tasks finished since the last one.

        It is accepted if the meta-policy stays within its trust region on the data it collected itself and
        if, adapted anew on the stored data, the surrogates of reward and costs keep what the step promised.
        Otherwise the old meta-parameters stay, bit for bit. Then the observations' statistics move, and the
        shared critic becomes the mean of the tasks' critics.

        :return: numbers to log.
        :raises RuntimeError: if no task was finished.
        """
        if not self._outcomes:
            raise RuntimeError("meta_step needs finish_task before")
        outcomes, self._outcomes = self._outcomes, []
        config, parameters = self.config, list(self.meta_actor.parameters())
        firsts = [x.first for x in outcomes]
        g = torch.stack([x.gradients[0] for x in outcomes]).mean(0)
        a = torch.stack([x.gradients[1:] for x in outcomes])
        b = torch.stack([x.surplus for x in outcomes])
        each = config.outer_constraint == "each"
        a, b = (a.flatten(0, 1), b.flatten()) if each else (a.mean(0), b.mean(0))
        metric = self._metric(self.meta_actor, firsts)
        inverse = None if metric is None else metric.inverse(flatten(parameters))
        step = constrained_step(g, a, b, kl_bound=config.outer_kl_bound, inverse_metric=inverse)

        def evaluate() -> Surrogates:
            theta = flatten(parameters)
            values = [x.loss(self._adapted(theta, x)) for x in outcomes]
            costs = torch.stack([c for _, c in values])
            costs = costs.flatten() if each else costs.mean(0)
            reward = -torch.stack([f for f, _ in values]).mean()
            return measured(reward, costs, mean_kl(self.meta_actor, firsts))

        search = search_along(parameters, step, evaluate, b, kl_bound=config.outer_kl_bound, config=config)
        metrics = self._share_what_was_learnt(outcomes)
        cases = sum((x.cases for x in outcomes), Counter[str]())
        total = max(sum(cases.values()), 1)
        metrics |= {
            "meta/fraction": search.fraction,
            "meta/kl": search.after.kl,
            "meta/lambda": step.multiplier_kl,
            "meta/improvement": search.after.reward - search.before.reward,
            **{f"meta/case_{x}": float(step.case == x) for x in get_args(Case)},
            **{f"meta/refused_{x}": float(search.rejections.count(x)) for x in get_args(Rejection)},
            **{f"adaptation/share_{x}": n / total for x, n in cases.items()},
            "adaptation/corners": float(sum(x.corners for x in outcomes)),
            "meta/adapted_kl": self._adapted_kl(flatten(parameters).detach(), outcomes),
            **per_cost("meta/nu", step.multipliers.tolist()),
            **per_cost("meta/surplus", b.tolist()),
        }
        cosines = [x.cosine for x in outcomes if math.isfinite(x.cosine)]
        if cosines:
            metrics["meta/cosine"] = float(np.mean(cosines))
        self.begin_task()
        return {k: v for k, v in metrics.items() if math.isfinite(v)}

    @torch.no_grad()
    def _adapted_kl(self, theta: Tensor, outcomes: list[TaskOutcome]) -> float:
        """Mean divergence of the policies that collected last from those adapted anew."""
        like = {name: x.detach() for name, x in self.meta_actor.named_parameters()}
        adapted = [unflatten(self._adapted(theta, x), like) for x in outcomes]
        acting = [partial(functional_call, self.meta_actor, frozen) for frozen in adapted]
        return float(
            np.mean([float(mean_kl(act, [x.last])) for act, x in zip(acting, outcomes, strict=True)])
        )

    def _adapted(self, theta: Tensor, outcome: TaskOutcome) -> Tensor:
        """``phi^K`` ``[P]`` from other meta-parameters, on the stored data."""
        return replay(theta, outcome.steps, limit_gradient=self.config.limit_gradient).detach()

    @torch.no_grad()
    def _share_what_was_learnt(self, outcomes: list[TaskOutcome]) -> dict[str, float]:
        """Statistics, shared critic and multipliers follow the tasks' data."""
        if self.normaliser is not None:
            self.normaliser.update(torch.cat(self._observations))
        for parameter, copies in zip(
            self.meta_critic.parameters(), zip(*self._critics, strict=True), strict=True
        ):
            parameter.copy_(torch.stack(copies).mean(0))
        self._observations, self._critics = [], []
        cost = np.mean([x.episode_cost for x in outcomes], axis=0)
        metrics = per_cost("constraint/adapted_cost", cost.tolist())
        if self.multipliers is not None:
            limits = (1.0 - self.config.cost_margin) * self._limits
            self.multipliers.update(to_device(cost, self.device), limits)
            metrics |= per_cost("constraint/multiplier", self.multipliers.values.tolist())
        return metrics
