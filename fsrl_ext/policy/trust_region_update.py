"""One update of an actor inside a trust region, with or without constraints: TRPO's and CPO's.

Dimension letters: ``T`` steps, ``P`` parameters, ``m`` constraints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from fsrl_ext.functional.constrained_step import Case, ConstrainedStep, constrained_step
from fsrl_ext.functional.gaussian import kl_divergence, log_density
from fsrl_ext.functional.inverse_metric import InverseMetric
from fsrl_ext.functional.trust_region import (
    FisherVectorProduct,
    LineSearchResult,
    Surrogates,
    flat_gradient,
    line_search,
)
from fsrl_ext.policy.metrics import per_cost
from fsrl_ext.policy.onpolicy import Rollout
from fsrl_ext.policy.onpolicy_config import TrustRegionConfig


def trust_region_update(
    actor: nn.Module,
    rollout: Rollout,
    *,
    advantage: Tensor,
    cost_advantages: Tensor,
    surplus: Tensor,
    config: TrustRegionConfig,
) -> dict[str, float]:
    """Move the actor by the constrained step, as far as the line search accepts.

    The step is exact for the gradients of the surrogates and for products with the inverse of the damped
    Fisher matrix that conjugate gradient gives. The line search then holds the real mean KL divergence and
    the real surrogates against the bounds.

    :param advantage: ``[T]`` of what is to be raised.
    :param cost_advantages: ``[m, T]``, centred, in units of cost; no rows for no constraint.
    :param surplus: ``[m]`` by how much each constraint is exceeded per step; ``-inf`` turns one off.
    :return: numbers to log.
    :raises NonFiniteError: if a gradient is not finite; the actor has not changed then.
    """
    parameters = list(actor.parameters())

    def surrogates() -> tuple[Tensor, Tensor]:
        """Of reward ``[]`` and costs ``[m]``."""
        (mean, std), _ = actor(rollout.obs)
        ratio = (log_density(mean, std, rollout.act) - rollout.log_density).exp()
        return (ratio * advantage).mean(), (ratio * cost_advantages).mean(1)

    def divergence(every: int = 1) -> Tensor:
        (mean, std), _ = actor(rollout.obs[::every])
        return kl_divergence(rollout.mean[::every], rollout.std[::every], mean, std).mean()

    def evaluate() -> Surrogates:
        reward, costs = surrogates()
        values = torch.cat([reward[None], costs, divergence()[None]]).tolist()
        return Surrogates(reward=values[0], costs=tuple(values[1:-1]), kl=values[-1])

    reward, costs = surrogates()
    g = flat_gradient(-reward, parameters, retain_graph=True)
    rows = [flat_gradient(cost, parameters, retain_graph=True) for cost in costs]
    a = torch.stack(rows) if rows else g.new_zeros(0, len(g))
    fisher = FisherVectorProduct(
        divergence(round(1 / config.fisher_fraction)), parameters, damping=config.cg_damping
    )
    inverse_metric = InverseMetric(fisher, max_iterations=config.cg_iterations)
    with torch.no_grad():
        step = constrained_step(g, a, surplus, kl_bound=config.kl_bound, inverse_metric=inverse_metric)
    search = line_search(
        parameters,
        step.step,
        evaluate,
        kl_bound=config.kl_bound,
        cost_slack=surplus.neg().clamp(min=0.0).tolist(),
        improve_reward=must_improve(step, surplus),
        max_backtracks=config.max_backtracks,
        shrink=config.backtrack_factor,
    )
    return _metrics(step, search, surplus, config) | {"step/cg_residual": inverse_metric.worst_residual}


def must_improve(step: ConstrainedStep, surplus: Tensor) -> bool:
    """Whether a step has to raise the reward: not while a limit is exceeded.

    A step back within the limits may have to pay for it with reward, by plan and not only in a recovery; to
    ask for both would leave the policy where it is.

    :param surplus: ``[m]``, as in :func:`trust_region_update`.
    """
    return step.case in ("inactive", "active") and not bool((surplus > 0.0).any())


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
