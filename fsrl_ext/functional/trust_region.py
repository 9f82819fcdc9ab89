"""The line search inside a trust region, and the surrogates that it compares.

Letters: ``P`` parameters, ``m`` constraints.

Sources: Schulman et al., "Trust Region Policy Optimization", ICML 2015 (arXiv 1502.05477), appendix C;
Achiam et al., "Constrained Policy Optimization", ICML 2017 (arXiv 1705.10528), for the acceptance of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fsrl_ext.errors import checked

# phi [P] -> (f [], c [m]): the *negative* reward surrogate and the cost surrogates, differentiable twice.
SurrogateLoss = Callable[[Tensor], tuple[Tensor, Tensor]]


@checked(shapes={"parameters": "P"})
def surrogate_gradients(
    loss: SurrogateLoss, parameters: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return g ``[P]``, a ``[m, P]`` and the cost surrogates ``[m]`` at the parameters ``[P]``.

    With ``create_graph`` all three can be differentiated, in the given parameters.

    :raises ValueError: for surrogates of another shape.
    """
    with torch.enable_grad():
        phi = parameters if parameters.requires_grad else parameters.detach().requires_grad_()
        reward, costs = loss(phi)
        if reward.dim() != 0 or costs.dim() != 1:
            raise ValueError(f"loss must return [] and [m], got {list(reward.shape)}, {list(costs.shape)}")
        rows = [
            torch.autograd.grad(x, phi, retain_graph=True, create_graph=create_graph, materialize_grads=True)[
                0
            ]
            for x in (reward, *costs)
        ]
    return rows[0], torch.stack(rows[1:]) if len(rows) > 1 else phi.new_zeros(0, len(phi)), costs


@dataclass(frozen=True, kw_only=True)
class Surrogates:
    """The numbers that a step is judged by, on the data of the update at the current parameters.

    :ivar reward: mean of ratio times reward advantage, to be raised.
    :ivar costs: mean of ratio times cost advantage, one number per constraint.
    :ivar kl: mean KL divergence between the old policy and the current one, in nats.
    """

    reward: float
    costs: tuple[float, ...]
    kl: float

    def is_finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return all(math.isfinite(x) for x in (self.reward, *self.costs, self.kl))


Rejection = Literal["non_finite", "kl", "cost", "reward"]


@dataclass(frozen=True, kw_only=True)
class LineSearchResult:
    """Answer of :func:`line_search`.

    :ivar fraction: part of the step that was taken; 0 if none was, and the parameters are then the old
        ones, bit for bit.
    :ivar before: surrogates at the old parameters.
    :ivar after: surrogates at the parameters that the search leaves.
    :ivar rejections: why each longer step was refused, longest first; one ``"non_finite"`` if no step was
        tried.
    """

    fraction: float
    before: Surrogates
    after: Surrogates
    rejections: tuple[Rejection, ...]


@checked(
    shapes={"step": "P"},
    positive=("kl_bound",),
    non_negative_or_inf=("cost_slack",),
    at_least_zero=("max_backtracks",),
    open_unit_interval=("shrink",),
)
@torch.no_grad()
def line_search(
    parameters: Iterable[Tensor],
    step: Tensor,
    evaluate: Callable[[], Surrogates],
    *,
    kl_bound: float,
    cost_slack: Sequence[float] = (),
    improve_reward: bool = True,
    max_backtracks: int = 20,
    shrink: float = 0.8,
) -> LineSearchResult:
    """Take the longest of ``step, shrink step, shrink^2 step, ..`` that meets the bounds in fact.

    The search accepts the first step with ``kl <= kl_bound``, with every cost surrogate risen by at most its
    slack, and with a higher reward surrogate. If there is none, if the step or a value at the old parameters
    is not finite, or if ``evaluate`` raises, the old parameters stay, bit for bit.

    :param parameters: changed in place.
    :param step: ``[P]``, in the order of the parameters.
    :param evaluate: returns the surrogates at the current parameters; called without gradient, once at the
        old parameters and once per trial.
    :param kl_bound: delta, in nats.
    :param cost_slack: by how much each cost surrogate may rise: ``max(-b_i, 0)``, or ``inf`` for no limit.
    :param improve_reward: whether the reward surrogate must rise; it need not in a recovery.
    :param max_backtracks: number of trials after the full step.
    :param shrink: factor between one trial and the next, in (0, 1).
    :raises ValueError: for settings outside these ranges and lengths that do not match.
    """
    parameters, slack = list(parameters), tuple(float(x) for x in cost_slack)
    if step.shape != (sum(p.numel() for p in parameters),):
        raise ValueError(f"step must have one entry per parameter, got {list(step.shape)}")
    before = evaluate()
    if len(before.costs) != len(slack):
        raise ValueError(f"cost_slack must have {len(before.costs)} entries like costs, got {len(slack)}")
    old = [p.clone() for p in parameters]
    parts = [x.view_as(p) for x, p in zip(step.split([p.numel() for p in parameters]), old, strict=True)]
    rejections: list[Rejection] = []
    sound = before.is_finite() and bool(torch.isfinite(step).all())

    def refusal(after: Surrogates) -> Rejection | None:
        if not after.is_finite():
            return "non_finite"
        if after.kl > kl_bound:
            return "kl"
        if any(new > now + room for new, now, room in zip(after.costs, before.costs, slack, strict=True)):
            return "cost"
        return "reward" if improve_reward and after.reward <= before.reward else None

    accepted = False
    try:
        for trial in range(max_backtracks + 1 if sound else 0):
            fraction = shrink**trial
            for parameter, start, part in zip(parameters, old, parts, strict=True):
                parameter.copy_(start + fraction * part)
            after = evaluate()
            reason = refusal(after)
            accepted = reason is None
            if reason is None:
                return LineSearchResult(
                    fraction=fraction, before=before, after=after, rejections=tuple(rejections)
                )
            rejections.append(reason)
    finally:
        if not accepted:
            for parameter, start in zip(parameters, old, strict=True):
                parameter.copy_(start)
    return LineSearchResult(
        fraction=0.0, before=before, after=before, rejections=tuple(rejections) or ("non_finite",)
    )
