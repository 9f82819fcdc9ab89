"""One task of a meta-iteration: a step of its adaptation, the metric of the step, and the record of it all.

Dimension letters: ``K`` inner steps, ``T`` steps, ``P`` parameters, ``C`` costs, ``m`` constraints.
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
    gaussian_at,
    inverse_fisher,
    mean_kl,
    measured,
    search_along,
    thinned,
)


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """What the adapted policy's own data say."""

    gradients: Tensor
    """``[1 + m, P]`` at the meta-parameters: of the negative reward surrogate and the cost surrogates after
    the adaptation."""
    surplus: Tensor
    """``[m]`` after the adaptation."""
    loss: SurrogateLoss
    """Surrogates of the data after the adaptation."""
    last: Rollout
    """The adapted policy's data."""
    episode_cost: np.ndarray
    """``[C]`` mean cost of the adapted policy's episodes."""
    critic: list[Tensor]
    """Parameters of the critic that was fitted to the task."""
    cosine: float
    """Between the first-order and the exact gradient of the reward; NaN where there is none."""
    cases: Counter[str]
    """Cases of the accepted steps, and how many were rejected."""
    corners: int
    """Accepted steps whose derivative lacks a singular part."""


@dataclass
class TaskRecord:
    """All that the meta-step needs of one task; it grows with the adaptation."""

    steps: list[InnerStep] = field(default_factory=list)
    """The K steps of the adaptation, in order."""
    rollouts: list[Rollout] = field(default_factory=list)
    """The data that each step learnt from."""
    observations: list[Tensor] = field(default_factory=list)
    """``[T, O]`` of every collect, not normalised."""
    outcome: TaskOutcome | None = None
    """``None`` until the task is finished."""

    @property
    def finished(self) -> TaskOutcome:
        """The outcome of a finished task."""
        assert self.outcome is not None, "the task is not finished"
        return self.outcome

    @property
    def first(self) -> Rollout:
        """The meta-policy's own data."""
        return self.rollouts[0] if self.rollouts else self.finished.last


class HasStates(Protocol):
    """What the Fisher matrix needs of data, such as a :class:`~fsrl_ext.policy.onpolicy.base.Rollout`."""

    @property
    def obs(self) -> Tensor: ...


class MovingFisher:
    """The damped Fisher matrix of an actor's policy on given states, as a function of flat parameters.

    The actor's own parameters are not read.

    :param rollouts: data with the states ``obs [T, O]``.
    :param config: ``fisher_fraction`` of the states, ``cg_damping``, ``cg_iterations``.
    """

    def __init__(self, actor: nn.Module, rollouts: Sequence[HasStates], config: TrustRegionConfig) -> None:
        self.actor, self.config = actor, config
        self.states = thinned([rollout.obs for rollout in rollouts], config.fisher_fraction)

    def inverse(self, phi: Tensor) -> InverseMetric:
        """Returns ``z [P] -> H(phi)^-1 z [P]`` by conjugate gradient."""
        return inverse_fisher(self.actor, self.states, phi, self.config)

    def form(self, phi: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """``u . F(phi) w`` ``[]`` of the undamped matrix, to be differentiated in phi.

        The matrix is the mean over states of ``J' diag(1 / sigma^2, 2) J``, with J the Jacobian of the means
        and of the logarithms of the standard deviations.
        """
        with torch.enable_grad():
            phi = phi if phi.requires_grad else phi.detach().requires_grad_()
            mean, std = gaussian_at(self.actor, self.states, phi)
            outputs = torch.cat([mean, std.log()], dim=1)
            # J u is what J' c, linear in c, has for a derivative along u: reverse mode alone, differentiable.
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
    """Moves the actor by a constrained step, as far as the line search accepts.

    :param loss: surrogates of the rollout, see
        :func:`~fsrl_ext.policy.onpolicy.trust_region.surrogate_loss`.
    :param surplus: ``[m]`` by how much each constraint is exceeded per step.
    :param metric: as a function of the parameters; ``None`` for the identity.
    :param extra_constraints: of :func:`~fsrl_ext.functional.constrained_step.constrained_step`.
    :return: the step with all that its derivative needs, and how it was taken.
    :raises NonFiniteError: if a gradient is not finite; the actor has not changed then.
    """
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

    def evaluate() -> Surrogates:
        reward, costs = loss(flatten(parameters))
        return measured(-reward, costs, mean_kl(actor, [rollout]))

    search = search_along(parameters, step.step, evaluate, surplus, kl_bound=config.kl_bound, config=config)
    return dataclasses.replace(step, fraction=search.fraction), search


def adaptation_metrics(
    step: InnerStep, search: LineSearchResult, episode_cost: np.ndarray
) -> dict[str, float]:
    """Numbers to log of one step of an adaptation."""
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
    """Numbers to log of one step of the meta-policy; those that are not finite are left out."""
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
