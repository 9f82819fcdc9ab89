"""One update of an actor inside a trust region, with or without constraints: TRPO's and CPO's.

The update reads from top to bottom: gradients of the surrogates, products with the inverse Fisher matrix,
:func:`~fsrl_ext.functional.constrained_step.constrained_step`,
:func:`~fsrl_ext.functional.trust_region.line_search`.

Dimension letters: ``T`` steps, ``P`` parameters, ``m`` constraints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.conjugate_gradient import FisherVectorProduct, InverseMetric, flatten, unflatten
from fsrl_ext.functional.constrained_step import (
    Backend,
    Case,
    ConstrainedStep,
    ExtraConstraints,
    constrained_step,
)
from fsrl_ext.functional.gaussian import entropy, kl_divergence, log_density
from fsrl_ext.functional.trust_region import (
    LineSearchResult,
    SurrogateLoss,
    Surrogates,
    line_search,
    surrogate_gradients,
)
from fsrl_ext.policy.base import per_cost
from fsrl_ext.policy.onpolicy.base import OnpolicyConfig, Rollout


@dataclass(frozen=True, kw_only=True)
class TrustRegionConfig(OnpolicyConfig):
    """The trust region of TRPO and CPO: its size, how the step is solved for and how far it is taken."""

    kl_bound: float = 0.01
    """Mean KL divergence that an update may reach, in nats."""
    cg_iterations: int = 15
    """Conjugate gradient steps towards a product with the inverse Fisher matrix, at most."""
    cg_damping: float = 0.1
    """Added to the Fisher matrix's diagonal."""
    fisher_fraction: float = 1.0
    """Share of the states that the Fisher matrix is averaged over, evenly spaced, in (0, 1]."""
    max_backtracks: int = 20
    """Shorter steps tried after the full one, at most."""
    backtrack_factor: float = 0.8
    """Length of each shorter step relative to the one before, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("kl_bound",),
            non_negative=("cg_damping", "max_backtracks"),
            unit_interval=("fisher_fraction",),
            at_least_one=("cg_iterations",),
        )
        if not 0.0 < self.backtrack_factor < 1.0:
            raise ValueError(f"backtrack_factor must be in (0, 1), got {self.backtrack_factor}")


def trust_region_update(
    actor: nn.Module,
    rollout: Rollout,
    *,
    advantage: Tensor,
    cost_advantages: Tensor | None = None,
    surplus: Tensor | None = None,
    config: TrustRegionConfig,
    entropy_weight: float,
    backend: Backend = "exact",
    extra_constraints: ExtraConstraints | None = None,
) -> dict[str, float]:
    """Moves the actor by the constrained step, as far as the line search accepts.

    The step is exact for the gradients of the surrogates and for products with the inverse of the damped
    Fisher matrix that conjugate gradient gives. The line search then holds the real mean KL divergence and
    the real surrogates against the bounds.

    :param advantage: ``[T]`` of what is to be raised.
    :param cost_advantages: ``[m, T]``, centred, in units of cost; ``None`` for no constraint.
    :param surplus: ``[m]`` by how much each constraint is exceeded per step; ``-inf`` turns one off.
    :param entropy_weight: of the policy's mean entropy in nats, beside the advantage.
    :param backend: of :func:`~fsrl_ext.functional.constrained_step.constrained_step`, like
        ``extra_constraints``.
    :return: numbers to log.
    :raises NonFiniteError: if a gradient is not finite; the actor has not changed then.
    """
    if cost_advantages is None or surplus is None:
        cost_advantages, surplus = advantage.new_zeros(0, len(advantage)), advantage.new_zeros(0)
    parameters = list(actor.parameters())
    # Gradients of the surrogates, and products with the inverse Fisher matrix
    states = thinned([rollout.obs], config.fisher_fraction)
    inverse = inverse_fisher(actor, states, flatten(parameters), config)
    loss = surrogate_loss(actor, rollout, advantage, cost_advantages, entropy_weight=entropy_weight)
    g, a, _ = (x.detach() for x in surrogate_gradients(loss, flatten(parameters).detach().clone()))
    # The constrained step
    step = constrained_step(
        g,
        a,
        surplus,
        kl_bound=config.kl_bound,
        inverse_metric=inverse,
        backend=backend,
        extra_constraints=extra_constraints,
    )

    # The line search
    def evaluate() -> Surrogates:
        reward, costs = loss(flatten(parameters))
        return measured(-reward, costs, mean_kl(actor, [rollout]))

    search = search_along(parameters, step, evaluate, surplus, kl_bound=config.kl_bound, config=config)
    return _metrics(step, search, surplus, config) | {"step/cg_residual": inverse.worst_residual}


def surrogate_loss(
    actor: nn.Module,
    rollout: Rollout,
    advantage: Tensor,
    cost_advantages: Tensor,
    *,
    entropy_weight: float = 0.0,
) -> SurrogateLoss:
    """Returns ``phi [P] -> (-mean(ratio A) - w entropy [], mean(ratio A_c) [m])``.

    The actor's own parameters are not read.

    :param advantage: ``[T]``; ``cost_advantages`` ``[m, T]``.
    :param entropy_weight: w; the entropy is in nats, its mean over the states.
    """
    like = {name: x.detach() for name, x in actor.named_parameters()}

    def loss(phi: Tensor) -> tuple[Tensor, Tensor]:
        (mean, std), _ = functional_call(actor, unflatten(phi, like), (rollout.obs,))
        ratio = (log_density(mean, std, rollout.act) - rollout.log_density).exp()
        bonus = entropy_weight * entropy(std).mean() if entropy_weight else 0.0
        return -(ratio * advantage).mean() - bonus, (ratio * cost_advantages).mean(1)

    return loss


def mean_kl(actor: Callable[[Tensor], Any], rollouts: Sequence[Rollout]) -> Tensor:
    """Mean divergence, 0-dim, of the policies that collected from the actor's as it is now."""
    parts = []
    for rollout in rollouts:
        (mean, std), _ = actor(rollout.obs)
        parts.append(kl_divergence(rollout.mean, rollout.std, mean, std))
    return torch.cat(parts).mean()


def gaussian_at(actor: nn.Module, states: Sequence[Tensor], phi: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviations of the actor with parameters ``phi [P]`` in all states ``[T, O]``."""
    frozen = unflatten(phi, {name: x.detach() for name, x in actor.named_parameters()})
    outputs = [functional_call(actor, frozen, (obs,))[0] for obs in states]
    return torch.cat([mean for mean, _ in outputs]), torch.cat([std for _, std in outputs])


def thinned(states: Sequence[Tensor], fraction: float) -> list[Tensor]:
    """An evenly spaced share, in (0, 1], of the states ``[T, O]``."""
    return [obs[:: round(1 / fraction)] for obs in states]


def inverse_fisher(
    actor: nn.Module, states: Sequence[Tensor], phi: Tensor, config: TrustRegionConfig
) -> InverseMetric:
    """Returns ``z [P] -> H(phi)^-1 z [P]`` with the policy's damped Fisher matrix H, averaged over states.

    H belongs to the parameters ``phi`` given; it stays the same when the actor's parameters change.

    :param states: ``[T, O]`` each, normalised.
    """
    with torch.enable_grad():
        phi = phi.detach().clone().requires_grad_()
        mean, std = gaussian_at(actor, states, phi)
        divergence = kl_divergence(mean.detach(), std.detach(), mean, std).mean()
        fisher = FisherVectorProduct(divergence, [phi], damping=config.cg_damping)
    return InverseMetric(fisher, max_iterations=config.cg_iterations)


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
        "constraint/multiplier": step.multipliers.tolist(),
        "step/r": r.tolist(),
        "step/s": s.tolist(),
        "step/A": left.tolist(),
        "step/B": room.tolist(),
        "constraint/surplus": surplus.tolist(),
        "step/cost_change": change,
    }
    for name, values in columns.items():
        # Of a constraint that is off, or has no gradient, some are infinite.
        metrics |= {k: x for k, x in per_cost(name, values).items() if math.isfinite(x)}
    return metrics
