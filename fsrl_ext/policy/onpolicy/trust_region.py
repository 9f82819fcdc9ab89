"""One update of an actor inside a trust region, with or without constraints: TRPO's and CPO's.

The update reads from top to bottom: gradients of the surrogates, products with the inverse Fisher matrix,
:func:`~fsrl_ext.functional.constrained_step.constrained_step`,
:func:`~fsrl_ext.functional.trust_region.line_search`.

:class:`CostChanges` compares the change of the cost that updates predict with the change that is played.

Dimension letters: ``T`` steps, ``P`` parameters, ``m`` constraints, ``C`` costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
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
from fsrl_ext.functional.distribution import distribution, joined
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
    """Settings of the trust region of TRPO and CPO: its size, the Fisher matrix and the line search.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    kl_bound: float = 0.01
    """Largest mean KL divergence of the old policy from the updated one, in nats, > 0."""
    cg_iterations: int = 15
    """Largest number of conjugate gradient iterations for a product with the inverse Fisher matrix, >= 1."""
    cg_damping: float = 0.1
    """Number that is added to the diagonal of the Fisher matrix, >= 0."""
    fisher_fraction: float = 1.0
    """Share of the states, evenly spaced, over which the Fisher matrix is averaged, in (0, 1]."""
    max_backtracks: int = 20
    """Largest number of shorter steps that the line search tries after the full step, >= 0."""
    backtrack_factor: float = 0.8
    """Length of each shorter step of the line search relative to the one before, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("kl_bound",),
            non_negative=("cg_damping",),
            unit_interval=("fisher_fraction",),
            open_unit_interval=("backtrack_factor",),
            at_least_one=("cg_iterations",),
            at_least_zero=("max_backtracks",),
        )


class CostChanges:
    """Compares the changes of an episode's cost that updates predicted with the changes that were played.

    An update predicts ``T (mean(ratio A_c) after - before)``, in units of episode cost. The played change is
    the difference between the mean costs of the episodes before the update and of those after it, which the
    next data show. A mean over few episodes is noisy, so the ratio is a regression slope over the last
    :attr:`window` updates.

    :param room: part of the names of logged numbers before the slash.
    """

    window = 20
    """Number of updates that the comparison is about, the last ones."""

    def __init__(self, room: str = "constraint") -> None:
        self._room = room
        self._pairs: list[tuple[list[float], list[float]]] = []
        self._open: tuple[list[float], list[float]] | None = None

    def forget_open(self) -> None:
        """Drops the prediction whose played change is not known yet, because other data follow."""
        self._open = None

    def play(self, cost: np.ndarray) -> dict[str, float]:
        """Compares the last prediction with what was played, if there is one; returns numbers to log.

        :param cost: ``[C]`` mean cost of the episodes after the last update.
        """
        if self._open is None:
            return {}
        before, predicted = self._open
        played = (cost - np.array(before)).tolist()
        self._pairs = [*self._pairs, (predicted, played)][-self.window :]
        self._open = None
        x, y = np.array(self._pairs).swapaxes(0, 1)
        squares = (x * x).sum(0)
        slope = np.divide((x * y).sum(0), squares, out=np.full_like(squares, np.nan), where=squares > 0)
        metrics = per_cost(f"{self._room}/played_change", played)
        metrics |= per_cost(f"{self._room}/played_per_predicted", slope.tolist())
        metrics |= per_cost(f"{self._room}/unpredicted_change", (y - x).mean(0).tolist())
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def predict(self, cost: np.ndarray, change: np.ndarray) -> dict[str, float]:
        """Keeps the prediction of an update until its data come; returns numbers to log.

        :param cost: ``[C]`` mean cost of the episodes before the update.
        :param change: ``[C]`` predicted change of that cost.
        """
        self._open = (cost.tolist(), change.tolist())
        return per_cost(f"{self._room}/predicted_change", change.tolist())

    def state_dict(self) -> dict[str, Any]:
        """Returns the last changes as lists of numbers."""
        return {"pairs": [list(x) for x in self._pairs], "open": self._open and list(self._open)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self._pairs = [(x, y) for x, y in state["pairs"]]
        self._open = state["open"] and tuple(state["open"])


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
) -> tuple[dict[str, float], LineSearchResult]:
    """Moves the actor along the constrained step, by the longest part that the line search accepts.

    The step is the exact optimum for the gradients of the surrogates and for the damped Fisher matrix, whose
    inverse conjugate gradient multiplies. The line search compares the real mean KL divergence and the real
    surrogates with their bounds. If it accepts nothing, the actor stays as it was, bit for bit.

    Sources: Schulman et al. 2015 (arXiv 1502.05477), appendix C; Achiam et al. 2017 (arXiv 1705.10528),
    section 6.

    :param actor: ``(output, state) = actor(obs)``; changed in place. The output is mean and standard
        deviations of a Gaussian, or logits of discrete actions.
    :param rollout: data of the policy that the actor is now.
    :param advantage: ``[T]`` of the reward or of a Lagrangian; the step raises it.
    :param cost_advantages: ``[m, T]``, centred, in units of cost; ``None`` for no constraint.
    :param surplus: ``[m]``, by how much each constraint is exceeded, per step and in units of cost; ``-inf``
        turns a constraint off.
    :param config: size of the trust region, conjugate gradient and line search.
    :param entropy_weight: weight of the policy's mean entropy, in nats, beside the advantage.
    :param backend: solver of :func:`~fsrl_ext.functional.constrained_step.constrained_step`.
    :param extra_constraints: further convex sets for that function.
    :return: numbers to log, and the result of the line search.
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
    metrics = _metrics(step, search, surplus, config) | {"step/cg_residual": inverse.worst_residual}
    return metrics, search


def check_extra_constraints(extra_constraints: ExtraConstraints | None, backend: Backend) -> None:
    """Refuses extra convex sets with a backend that takes none.

    :raises ValueError: naming the backend.
    """
    if extra_constraints is not None and backend != "cvxpylayers":
        raise ValueError(f"extra_constraints need step_backend='cvxpylayers', got step_backend={backend!r}")


def surrogate_loss(
    actor: nn.Module,
    rollout: Rollout,
    advantage: Tensor,
    cost_advantages: Tensor,
    *,
    entropy_weight: float = 0.0,
) -> SurrogateLoss:
    """Returns the surrogates as a function ``phi [P] -> (-mean(ratio A) - w H [], mean(ratio A_c) [m])``.

    The function evaluates the actor with the parameters phi in place of the actor's own.

    :param rollout: data of the old policy; ``ratio`` is the probability ratio to that policy.
    :param advantage: A, ``[T]``.
    :param cost_advantages: A_c, ``[m, T]``.
    :param entropy_weight: w, the weight of the mean entropy H over the states, in nats.
    """
    like = {name: x.detach() for name, x in actor.named_parameters()}

    def loss(phi: Tensor) -> tuple[Tensor, Tensor]:
        dist = distribution(functional_call(actor, unflatten(phi, like), (rollout.obs,))[0])
        ratio = (dist.log_density(rollout.act) - rollout.log_density).exp()
        bonus = entropy_weight * dist.entropy().mean() if entropy_weight else 0.0
        return -(ratio * advantage).mean() - bonus, (ratio * cost_advantages).mean(1)

    return loss


def mean_kl(actor: Callable[[Tensor], Any], rollouts: Sequence[Rollout]) -> Tensor:
    """Computes the mean KL divergence of the policies that collected from the current policy, 0-dim.

    :param actor: the current policy, ``(output, state) = actor(obs)``.
    :param rollouts: data with the distributions of the policies that collected; all states count alike.
    """
    return torch.cat([x.dist.kl(distribution(actor(x.obs)[0])) for x in rollouts]).mean()


def policy_at(actor: nn.Module, states: Sequence[Tensor], phi: Tensor) -> Any:
    """Returns the distributions of the actor with parameters ``phi [P]``, in all states together.

    :param states: ``[T, O]`` each, normalised.
    :return: one of :mod:`fsrl_ext.functional.distribution`.
    """
    frozen = unflatten(phi, {name: x.detach() for name, x in actor.named_parameters()})
    return joined([distribution(functional_call(actor, frozen, (obs,))[0]) for obs in states])


def thinned(states: Sequence[Tensor], fraction: float) -> list[Tensor]:
    """Returns an evenly spaced share ``fraction``, in (0, 1], of each of the ``states [T, O]``."""
    return [obs[:: round(1 / fraction)] for obs in states]


def inverse_fisher(
    actor: nn.Module, states: Sequence[Tensor], phi: Tensor, config: TrustRegionConfig
) -> InverseMetric:
    """Returns the product ``z [P] -> H(phi)^-1 z [P]`` with the inverse of the damped Fisher matrix H.

    H belongs to the parameters ``phi [P]``, whatever the actor's own parameters are or become.

    :param states: ``[T, O]`` each, normalised; H is the mean over all of them.
    :param config: damping and largest number of conjugate gradient iterations.
    """
    with torch.enable_grad():
        phi = phi.detach().clone().requires_grad_()
        dist = policy_at(actor, states, phi)
        divergence = dist.detach().kl(dist).mean()
        fisher = FisherVectorProduct(divergence, [phi], damping=config.cg_damping)
    return InverseMetric(fisher, max_iterations=config.cg_iterations)


def measured(reward: Tensor, costs: Tensor, kl: Tensor) -> Surrogates:
    """Copies surrogates ``[]``, ``[m]`` and divergence ``[]`` to the host, by a single transfer."""
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
    """Moves the parameters by the longest part of a constrained step that the line search accepts.

    A cost surrogate may rise by the distance to its limit, and not at all if the limit is exceeded.

    :param parameters: changed in place; they stay as they were, bit for bit, if no part is accepted.
    :param evaluate: surrogates and divergence at the current parameters.
    :param surplus: ``[m]``, as in :func:`trust_region_update`.
    :param kl_bound: bound on the divergence, in nats.
    :param config: number and lengths of the shorter steps.
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
    """Says whether the line search has to see a higher reward surrogate.

    A step that leads back within an exceeded limit may have to lower the reward. That holds in a recovery,
    and also for an active constraint; if the line search asked for more reward there, it would reject every
    step.

    :param surplus: ``[m]``, as in :func:`trust_region_update`.
    """
    return step.case == "inactive" or (step.case == "active" and not bool((surplus > 0.0).any()))


def _metrics(
    step: ConstrainedStep, search: LineSearchResult, surplus: Tensor, config: TrustRegionConfig
) -> dict[str, float]:
    """Returns numbers to log of a step; q, r, s, A, B are those of Achiam et al. 2017, appendix 10.2."""
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
    # A and B of each constraint as if it were the only one.
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
        # Some numbers are infinite for a constraint that is off or has no gradient.
        metrics |= {k: x for k, x in per_cost(name, values).items() if math.isfinite(x)}
    return metrics
