"""Settings of Lagrange multipliers, for off-policy and on-policy learning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from fsrl_ext.errors import check_fields

MultiplierMethod = Literal["pid", "ascent"]


@dataclass(frozen=True, kw_only=True)
class MultiplierConfig:
    """How the multipliers of cost constraints move, and what they do to an actor's objective.

    :raises ValueError: for values that cannot be used, naming them.
    """

    multiplier_method: MultiplierMethod = "pid"
    """How the multipliers move: PID control, or gradient ascent on the dual."""
    multiplier_gains: tuple[float, ...] = (0.02, 0.01, 0.0)
    """PID: proportional, integral and derivative gain, per unit of cost."""
    multiplier_smoothing: float = 0.0
    """PID: smoothing of the cost in the proportional and derivative parts, in [0, 1)."""
    multiplier_surplus_max: float = math.inf
    """PID: largest surplus that one update adds to the integral, in units of cost."""
    multiplier_lr: float = 0.01
    """Ascent: rate, per unit of cost."""
    multiplier_init: float = 0.0
    """Multipliers before the first update."""
    multiplier_max: float = 100.0
    """Largest multiplier."""
    rescale: bool = True
    """Divide the actor's loss by one plus the sum of the multipliers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "multiplier_gains", tuple(self.multiplier_gains))
        check_fields(
            self,
            positive=("multiplier_max",),
            non_negative=("multiplier_lr", "multiplier_init"),
            below_one=("multiplier_smoothing",),
            choices={"multiplier_method": get_args(MultiplierMethod)},
        )
        if not self.multiplier_surplus_max > 0.0:
            raise ValueError(f"multiplier_surplus_max must be > 0, got {self.multiplier_surplus_max}")
        if len(self.multiplier_gains) != 3 or not all(0 <= x < float("inf") for x in self.multiplier_gains):
            raise ValueError(f"multiplier_gains must be three numbers >= 0, got {self.multiplier_gains}")
        if self.multiplier_init > self.multiplier_max:
            raise ValueError(
                f"multiplier_init must be at most multiplier_max={self.multiplier_max}, "
                f"got {self.multiplier_init}"
            )


@dataclass(frozen=True, kw_only=True)
class OnpolicyMultiplierConfig(MultiplierConfig):
    """The same with the gains of on-policy learning, where every update sees some whole episodes."""

    multiplier_gains: tuple[float, ...] = (0.05, 0.005, 0.05)
    """PID: proportional, integral and derivative gain, per unit of cost."""
    multiplier_surplus_max: float = 10.0
    """PID: largest surplus that one update adds to the integral, in units of cost."""
