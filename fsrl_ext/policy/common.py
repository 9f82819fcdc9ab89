"""What the policies share: a quick start, checks, Polyak averages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import torch
from torch import Tensor

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.returns import as_cost_limits


class PolicyConfig(Protocol):
    """What is asked of every policy's config, which is a frozen dataclass."""

    @property
    def gamma(self) -> float:
        """Discount factor of reward and costs."""

    @property
    def uses_threshold(self) -> bool:
        """Whether the discounted threshold, which takes episodes to be full length, decides anything."""


class QuickStart:
    """Comes before ``BasePolicy``, which compiles its estimators of returns in every process: seconds.

    No policy here uses them; their first call compiles them, if there is one.
    """

    @staticmethod
    def _compile() -> None:
        """Nothing is compiled."""


def check_fields(
    config: object,
    *,
    positive: Sequence[str] = (),
    non_negative: Sequence[str] = (),
    unit_interval: Sequence[str] = (),
    below_one: Sequence[str] = (),
    at_least_one: Sequence[str] = (),
    choices: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Checks a config's fields by name.

    :raises ValueError: naming the field, its value and what is allowed.
    """
    rules: list[tuple[Sequence[str], str, Callable[[Any], bool]]] = [
        (positive, "> 0", lambda x: x > 0 and math.isfinite(x)),
        (non_negative, ">= 0", lambda x: x >= 0),
        (unit_interval, "in (0, 1]", lambda x: 0 < x <= 1),
        (below_one, "in [0, 1)", lambda x: 0 <= x < 1),
        (at_least_one, "a whole number >= 1", lambda x: x >= 1 and x == int(x)),
    ]
    for names, allowed, is_allowed in rules:
        for name in names:
            value = getattr(config, name)
            if not is_allowed(value):
                raise ValueError(f"{name} must be {allowed}, got {value}")
    for name, values in (choices or {}).items():
        value = getattr(config, name)
        if value not in values:
            raise ValueError(f"{name} must be one of {tuple(values)}, got {value!r}")


def check_normalised_box(action_space: gym.Space, policy: str) -> None:
    """Refuses action spaces that cannot be scaled to ``[-1, 1]``.

    :raises ValueError: naming the space.
    """
    if not isinstance(action_space, gym.spaces.Box):
        raise ValueError(f"{policy} needs a continuous (Box) action space, got {action_space}")
    if not action_space.is_bounded():
        raise ValueError(f"{policy} needs a bounded action space, got {action_space}")


def check_cost_limits(value: float | Sequence[float], num_costs: int) -> tuple[float, ...]:
    """The limits of a policy with this many costs.

    :raises ValueError: for another number of limits, and for limits that cannot be used.
    """
    limits = as_cost_limits(value)
    if len(limits) != num_costs:
        raise ValueError(f"cost_limit must have {num_costs} numbers, got {list(limits)}")
    return limits


def check_finite(loss: Tensor, name: str) -> None:
    """:raises NonFiniteError: if a loss is NaN or infinite, before any optimiser uses it."""
    if not torch.isfinite(loss):
        raise NonFiniteError(f"{name} is {loss.item()}; the parameters were left as they were")


def check_all_finite(values: Tensor, names: Sequence[str]) -> None:
    """:raises NonFiniteError: naming the first of the values ``[len(names)]`` that is NaN or infinite."""
    for name, value in zip(names, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} is {value}; the parameters were left as they were")


def clear_gradients(parameters: Sequence[Tensor]) -> None:
    """What ``optimizer.zero_grad()`` does, without its hooks."""
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Scales all gradients so that their joint norm is at most ``max_norm``; the host does not wait."""
    gradients = [x.grad for x in parameters if x.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def descend(
    optim: torch.optim.Optimizer,
    loss: Tensor,
    parameters: Sequence[Tensor],
    name: str,
    max_norm: float = math.inf,
) -> None:
    """One step of an optimiser down a loss, with the gradients' joint norm clipped.

    :raises NonFiniteError: if the loss is not finite, before anything moves.
    """
    check_finite(loss, name)
    clear_gradients(parameters)
    loss.backward()
    if max_norm < math.inf:
        clip_gradients(parameters, max_norm)
    optim.step()


def fit_with_lbfgs(
    optim: torch.optim.LBFGS, loss: Callable[[], Tensor], parameters: Sequence[Tensor], name: str
) -> None:
    """One call of L-BFGS, of up to ``max_iter`` iterations, on a loss that it has not seen before.

    Its curvature belongs to the data and is forgotten: no other call starts from it, no checkpoint holds it.

    :raises NonFiniteError: if the loss is not finite at the start or became so; the parameters are then
        those from before.
    """
    before = [x.detach().clone() for x in parameters]
    optim.state.clear()

    def closure() -> Tensor:
        clear_gradients(parameters)
        value = loss()
        value.backward()
        return value

    optim.step(closure)
    optim.state.clear()
    with torch.no_grad():
        value = loss()
        if not torch.isfinite(value):
            torch._foreach_copy_(list(parameters), before)
    check_finite(value, name)


@torch.no_grad()
def polyak_update(target: Sequence[Tensor], source: Sequence[Tensor], tau: float) -> None:
    """Moves the target's parameters by ``tau`` towards the source's."""
    torch._foreach_lerp_(list(target), list(source), tau)
