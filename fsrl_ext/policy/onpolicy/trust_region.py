"""One update of an actor inside a trust region, with or without constraints: TRPO's, CPO's, Meta-CPO's.

Dimension letters: ``T`` steps, ``P`` parameters, ``m`` constraints.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from fsrl_ext.functional.conjugate_gradient import InverseMetric, flatten
from fsrl_ext.functional.constrained_step import Case, ConstrainedStep
from fsrl_ext.functional.meta_gradient import InnerStep, MovingMetric, SurrogateLoss, inner_step
from fsrl_ext.functional.trust_region import LineSearchResult, Surrogates, line_search
from fsrl_ext.policy.metrics import per_cost
from fsrl_ext.policy.onpolicy.base import Rollout
from fsrl_ext.policy.onpolicy.config import TrustRegionConfig
from fsrl_ext.policy.onpolicy.surrogates import fisher_metric, mean_kl, surrogate_loss


def trust_region_update(
    actor: nn.Module,
    rollout: Rollout,
    *,
    advantage: Tensor,
    cost_advantages: Tensor,
    surplus: Tensor,
    config: TrustRegionConfig,
    entropy_weight: float,
) -> dict[str, float]:
    """Move the actor by the constrained step, as far as the line search accepts.

    The step is exact for the gradients of the surrogates and for products with the inverse of the damped
    Fisher matrix that conjugate gradient gives. The line search then holds the real mean KL divergence and
    the real surrogates against the bounds.

    :param advantage: ``[T]`` of what is to be raised.
    :param cost_advantages: ``[m, T]``, centred, in units of cost; no rows for no constraint.
    :param surplus: ``[m]`` by how much each constraint is exceeded per step; ``-inf`` turns one off.
    :param entropy_weight: of the policy's mean entropy in nats, beside the advantage.
    :return: numbers to log.
    :raises NonFiniteError: if a gradient is not finite; the actor has not changed then.
    """
    inverse = fisher_metric(actor, [rollout], config)
    loss = surrogate_loss(actor, rollout, advantage, cost_advantages, entropy_weight=entropy_weight)
    taken, search = constrained_update(actor, rollout, loss, surplus, config=config, inverse_metric=inverse)
    return _metrics(taken.step, search, surplus, config) | {"step/cg_residual": inverse.worst_residual}


def constrained_update(
    actor: nn.Module,
    rollout: Rollout,
    loss: SurrogateLoss,
    surplus: Tensor,
    *,
    config: TrustRegionConfig,
    inverse_metric: InverseMetric | None = None,
    metric: MovingMetric | None = None,
) -> tuple[InnerStep, LineSearchResult]:
    """The same for surrogates that are given: the step with what its derivative needs, and how it was taken.

    :param loss: of the rollout, see :func:`~fsrl_ext.policy.onpolicy.surrogates.surrogate_loss`.
    :param inverse_metric: of the actor before the step, if the step is not differentiated.
    :param metric: as a function of the parameters, if it is. Without either it is the identity.
    :raises NonFiniteError: if a gradient is not finite; the actor has not changed then.
    """
    parameters = list(actor.parameters())
    step = inner_step(
        flatten(parameters),
        loss,
        surplus,
        kl_bound=config.kl_bound,
        inverse_metric=inverse_metric,
        metric=metric,
    )

    def evaluate() -> Surrogates:
        reward, costs = loss(flatten(parameters))
        return measured(-reward, costs, mean_kl(actor, [rollout]))

    search = search_along(parameters, step.step, evaluate, surplus, kl_bound=config.kl_bound, config=config)
    return dataclasses.replace(step, fraction=search.fraction), search


def measured(reward: Tensor, costs: Tensor, kl: Tensor) -> Surrogates:
    """Surrogates ``[]``, ``[m]`` and divergence ``[]`` as numbers, in one copy to the host."""
    values = torch.cat([reward[None], costs, kl[None]]).tolist()
    return Surrogates(reward=values[0], costs=tuple(values[1:-1]), kl=values[-1])


def search_along(
    parameters: Sequence[Tensor],
    step: ConstrainedStep,
    evaluate: Callable[[], Surrogates],
    surplus: Tensor,
    *,
    kl_bound: float,
    config: TrustRegionConfig,
) -> LineSearchResult:
    """Take the longest part of a constrained step that keeps its promises; changes the parameters.

    :param surplus: ``[m]``; a cost surrogate may rise by what is left below its limit.
    """
    return line_search(
        parameters,
        step.step,
        evaluate,
        kl_bound=kl_bound,
        cost_slack=surplus.neg().clamp(min=0.0).tolist(),
        improve_reward=must_improve(step, surplus),
        max_backtracks=config.max_backtracks,
        shrink=config.backtrack_factor,
    )


def must_improve(step: ConstrainedStep, surplus: Tensor) -> bool:
    """Whether a step has to raise the reward: not where it bends to a limit that is exceeded.

    The way back within the limits may have to be paid for with reward, by plan and not only in a recovery; to
    ask for both would leave the policy where it is.

    :param surplus: ``[m]``, as in :func:`trust_region_update`.
    """
    return step.case == "inactive" or (step.case == "active" and not bool((surplus > 0.0).any()))


def _metrics(
    step: ConstrainedStep, search: LineSearchResult, surplus: Tensor, config: TrustRegionConfig
) -> dict[str, float]:
    assert step.gram is not None
    metrics = {
        "step/fraction": search.fraction,
        "step/backtracks": float(len(search.rejections)),
        "step/kl": search.after.kl,
        "step/kl_relative": search.after.kl / config.kl_bound,
        "step/lambda": step.multiplier_kl,
        "step/improvement": search.after.reward - search.before.reward,
        "step/q": float(step.gram[-1, -1]),
    }
    if not len(surplus):
        return metrics
    metrics |= {f"step/case_{case}": float(step.case == case) for case in get_args(Case)}
    r, s = step.gram[-1, :-1], step.gram[:-1, :-1].diagonal()
    # Of a constraint alone, as in the formulas for one.
    left = torch.where(s > 0, step.gram[-1, -1] - r.square() / s, step.gram[-1, -1])
    room = torch.where(s > 0, 2.0 * config.kl_bound - surplus.double().cpu().square() / s, -math.inf)
    change = [after - before for after, before in zip(search.after.costs, search.before.costs, strict=True)]
    columns: dict[str, Sequence[float]] = {
        "step/nu": step.multipliers.tolist(),
        "step/r": r.tolist(),
        "step/s": s.tolist(),
        "step/A": left.tolist(),
        "step/B": room.tolist(),
        "step/surplus": surplus.tolist(),
        "step/cost_change": change,
    }
    for name, values in columns.items():
        # Of a constraint that is off, or has no gradient, some are infinite.
        metrics |= {k: x for k, x in per_cost(name, values).items() if math.isfinite(x)}
    return metrics
