"""The adaptation to one task of a meta-iteration: the record that it fills, the metric, and one inner step.

Dimension letters: ``K`` inner steps, ``T`` steps of a collect, ``O`` observation, ``A`` action, ``P``
parameters, ``C`` costs, ``m`` constraints.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.functional.conjugate_gradient import InverseMetric, flatten
from fsrl_ext.functional.constrained_step import Case, ConstrainedStep, ExtraConstraints
from fsrl_ext.functional.meta_gradient import InnerStep, inner_step
from fsrl_ext.functional.trust_region import LineSearchResult, Rejection, SurrogateLoss, Surrogates
from fsrl_ext.policy.base import per_cost
from fsrl_ext.policy.meta_config import MAMLConfig
from fsrl_ext.policy.onpolicy.base import Rollout
from fsrl_ext.policy.onpolicy.trust_region import (
    TrustRegionConfig,
    inverse_fisher,
    mean_kl,
    measured,
    policy_at,
    search_along,
    thinned,
)


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """The result of a finished task, from the data that the adapted policy collected."""

    gradients: Tensor
    """``[1 + m, P]`` in the meta-parameters: of the adapted policy's negative reward surrogate and of its
    cost surrogates."""
    surplus: Tensor
    """``[m]``, by how much the adapted policy exceeds each constraint, per step and in units of cost."""
    loss: SurrogateLoss
    """Surrogates of the adapted policy's data, as a function of the adapted parameters."""
    last: Rollout
    """Data of the adapted policy."""
    episode_cost: np.ndarray
    """``[C]`` mean cost of the adapted policy's episodes, in the unit of the limits."""
    episode_length: float
    """Mean number of steps of these episodes."""
    critic: list[Tensor]
    """Parameters of the critic that was fitted to the task."""
    cosine: float
    """Cosine of the angle between the first-order and the exact gradient of the reward; NaN if the exact one
    was not computed."""
    cases: Counter[str]
    """Number of accepted inner steps by case, and of rejected ones as ``"rejected"``."""
    corners: int
    """Number of accepted inner steps whose derivative lacks a singular part."""


@dataclass
class TaskRecord:
    """The record of one task, which the adaptation fills and the meta-step reads."""

    steps: list[InnerStep] = field(default_factory=list)
    """The inner steps so far, in order."""
    rollouts: list[Rollout] = field(default_factory=list)
    """The data of each inner step."""
    observations: list[Tensor] = field(default_factory=list)
    """``[T, O]`` observations of every collect, not normalised."""
    outcome: TaskOutcome | None = None
    """The result of the task; ``None`` until the task is finished."""

    @property
    def finished(self) -> TaskOutcome:
        """The result of a task that is finished."""
        assert self.outcome is not None, "finish_task comes before finished"
        return self.outcome

    @property
    def first(self) -> Rollout:
        """Data of the meta-policy itself, before any inner step."""
        return self.rollouts[0] if self.rollouts else self.finished.last


class HasStates(Protocol):
    """Data with states, such as a :class:`~fsrl_ext.policy.onpolicy.base.Rollout`."""

    @property
    def obs(self) -> Tensor:
        """``[T, O]`` normalised observations."""


class MovingFisher:
    """The damped Fisher matrix H of a policy on given states, as a function of the flat parameters phi.

    It implements :class:`~fsrl_ext.functional.meta_gradient.MovingMetric`. The parameters phi replace the
    actor's own, which it does not read.

    :param actor: ``((mean, std), state) = actor(obs)``.
    :param rollouts: data with the states ``obs [T, O]``.
    :param config: its ``fisher_fraction`` of the states, ``cg_damping`` and ``cg_iterations`` are used.
    """

    def __init__(self, actor: nn.Module, rollouts: Sequence[HasStates], config: TrustRegionConfig) -> None:
        self.actor, self.config = actor, config
        self.states = thinned([rollout.obs for rollout in rollouts], config.fisher_fraction)

    def inverse(self, phi: Tensor) -> InverseMetric:
        """Returns the product ``z [P] -> H(phi)^-1 z [P]`` by conjugate gradient, for ``phi [P]``."""
        return inverse_fisher(self.actor, self.states, phi, self.config)

    def form(self, phi: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """Computes ``u . F(phi) w``, 0-dim, with its graph in ``phi [P]``; F is H without damping.

        F is the mean over states of ``J' diag(1 / sigma^2, 2) J``, where J is the Jacobian of the means and
        of the logarithms of the standard deviations.

        :param u: ``[P]``, constant.
        :param w: ``[P]``, constant.
        """
        with torch.enable_grad():
            phi = phi if phi.requires_grad else phi.detach().requires_grad_()
            dist = policy_at(self.actor, self.states, phi)
            mean, std = dist.mean, dist.std
            outputs = torch.cat([mean, std.log()], dim=1)
            # J' c is linear in c, so J u is the gradient of u . J' c in c. This way needs reverse mode alone,
            # which can be differentiated once more.
            c = torch.zeros_like(outputs, requires_grad=True)
            (pulled,) = torch.autograd.grad(outputs, phi, c, create_graph=True)
            (along_u,), (along_w,) = (
                torch.autograd.grad(pulled, c, v.detach(), create_graph=True) for v in (u, w)
            )
            weight = torch.cat([std.square().reciprocal(), torch.full_like(std, 2.0)], dim=1)
            return (weight * along_u * along_w).sum(-1).mean()


def adaptation_step(
    actor: nn.Module,
    rollout: Rollout,
    loss: SurrogateLoss,
    surplus: Tensor,
    *,
    config: MAMLConfig,
    metric: MovingFisher | None,
    extra_constraints: ExtraConstraints | None = None,
) -> tuple[InnerStep, LineSearchResult]:
    """Moves the actor by one inner step: the longest part of a constrained step that the search accepts.

    If the line search accepts nothing, the actor stays as it was, bit for bit.

    :param actor: ``((mean, std), state) = actor(obs)``; changed in place.
    :param rollout: data of the policy that the actor is now.
    :param loss: surrogates of the rollout, see
        :func:`~fsrl_ext.policy.onpolicy.trust_region.surrogate_loss`.
    :param surplus: ``[m]``, by how much each constraint is exceeded, per step and in units of cost.
    :param config: size of the trust region, solver of the step, line search.
    :param metric: the metric as a function of the parameters; ``None`` for the identity.
    :param extra_constraints: further convex sets, see
        :func:`~fsrl_ext.functional.constrained_step.constrained_step`.
    :return: the step with all that its derivative needs, and the result of the line search.
    :raises NonFiniteError: if a gradient is not finite; the actor has not changed then.
    """
    # The constrained step
    parameters = list(actor.parameters())
    step = inner_step(
        flatten(parameters),
        loss,
        surplus,
        kl_bound=config.kl_bound,
        metric=metric,
        backend=config.step_backend,
        extra_constraints=extra_constraints,
    )

    # The line search
    def evaluate() -> Surrogates:
        reward, costs = loss(flatten(parameters))
        return measured(-reward, costs, mean_kl(actor, [rollout]))

    search = search_along(parameters, step.step, evaluate, surplus, kl_bound=config.kl_bound, config=config)
    return dataclasses.replace(step, fraction=search.fraction), search


def adaptation_metrics(
    step: InnerStep, search: LineSearchResult, episode_cost: np.ndarray
) -> dict[str, float]:
    """Returns numbers to log of one inner step.

    :param episode_cost: ``[C]`` mean cost of the episodes before the step.
    """
    return {
        "adaptation/fraction": search.fraction,
        "adaptation/kl": search.after.kl,
        "adaptation/lambda": step.step.multiplier_kl,
        "adaptation/improvement": search.after.reward - search.before.reward,
        **{f"adaptation/case_{x}": float(step.step.case == x) for x in get_args(Case)},
        **per_cost("adaptation/episode_cost", episode_cost.tolist()),
    }


def meta_step_metrics(
    step: ConstrainedStep, search: LineSearchResult, surplus: Tensor, outcomes: Sequence[TaskOutcome]
) -> dict[str, float]:
    """Returns the finite numbers to log of one meta-step.

    :param surplus: ``[m]`` of the constraints of the meta-step, per step and in units of cost.
    :param outcomes: results of the tasks of the meta-iteration.
    """
    cases = sum((x.cases for x in outcomes), Counter[str]())
    total = max(sum(cases.values()), 1)
    metrics = {
        "meta/fraction": search.fraction,
        "meta/kl": search.after.kl,
        "meta/lambda": step.multiplier_kl,
        "meta/improvement": search.after.reward - search.before.reward,
        **{f"meta/case_{x}": float(step.case == x) for x in get_args(Case)},
        **{f"meta/refused_{x}": float(search.rejections.count(x)) for x in get_args(Rejection)},
        **{f"adaptation/share_{x}": n / total for x, n in cases.items()},
        "adaptation/corners": float(sum(x.corners for x in outcomes)),
        **per_cost("constraint/multiplier", step.multipliers.tolist()),
        **per_cost("constraint/surplus", surplus.tolist()),
    }
    cosines = [x.cosine for x in outcomes if math.isfinite(x.cosine)]
    if cosines:
        metrics["meta/cosine"] = float(np.mean(cosines))
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
