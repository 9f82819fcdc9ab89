"""What every policy with cost limits is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import gymnasium as gym

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
