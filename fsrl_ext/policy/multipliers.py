"""Lagrange multipliers of cost constraints: their settings, and a module that holds and moves their values.

Dimension letter: ``C`` costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.multiplier import MultiplierState, dual_ascent, initial_multipliers, pid_control
from fsrl_ext.policy.base import PolicyConfig

MultiplierMethod = Literal["pid", "ascent"]


@dataclass(frozen=True, kw_only=True)
class MultiplierConfig(PolicyConfig):
    """Settings of Lagrange multipliers: how they move, and how they enter the actor's loss.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    multiplier_method: MultiplierMethod = "pid"
    """How the multipliers move with the cost surplus: ``pid`` control, or gradient ``ascent`` on the dual."""
    multiplier_gains: tuple[float, ...] = (0.3, 0.05, 0.0)
    """PID: proportional, integral and derivative gain of the multipliers, each >= 0, per surplus of the size
    of the cost limit."""
    multiplier_smoothing: float = 0.0
    """PID: weight of the last smoothed cost in the next one, in [0, 1), for the proportional and derivative
    parts; 0 takes each cost as it is."""
    multiplier_surplus_max: float = math.inf
    """PID: largest cost surplus that one update adds to the integral, > 0, relative to the cost limit."""
    multiplier_lr: float = 0.1
    """Ascent: change of a multiplier per update and surplus of the size of the cost limit, >= 0."""
    multiplier_init: float = 0.0
    """Value of each multiplier before the first update, in [0, multiplier_max]."""
    multiplier_max: float = 100.0
    """Largest value of a multiplier, > 0."""
    rescale: bool = True
    """Divide the actor's loss by one plus the sum of the multipliers."""
    cost_margin: float = 0.0
    """Share of each cost limit that the multipliers keep free, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("multiplier_max",),
            positive_or_inf=("multiplier_surplus_max",),
            non_negative=("multiplier_lr", "multiplier_init", "multiplier_gains"),
            below_one=("multiplier_smoothing", "cost_margin"),
            choices={"multiplier_method": get_args(MultiplierMethod)},
        )
        if len(self.multiplier_gains) != 3:
            raise ValueError(f"multiplier_gains must be three numbers >= 0, got {self.multiplier_gains}")
        if self.multiplier_init > self.multiplier_max:
            raise ValueError(
                f"multiplier_init must be at most multiplier_max={self.multiplier_max}, "
                f"got {self.multiplier_init}"
            )


@dataclass(frozen=True, kw_only=True)
class OnpolicyMultiplierConfig(MultiplierConfig):
    """Settings of Lagrange multipliers, with defaults for on-policy learning.

    Every on-policy update sees several whole episodes, so it can move the multipliers further.

    :raises ValueError: as :class:`MultiplierConfig`.
    """

    multiplier_gains: tuple[float, ...] = (1.0, 0.1, 0.5)
    """PID: proportional, integral and derivative gain of the multipliers, each >= 0, per surplus of the size
    of the cost limit. With smaller ones the policy can lose its noise above the limit before the multipliers
    have grown, and then no data say how to come back (``docs/notes/onpolicy.md``)."""
    multiplier_surplus_max: float = 1.0
    """PID: largest cost surplus that one update adds to the integral, > 0, relative to the cost limit."""


class Multipliers(nn.Module):
    """Holds one multiplier per cost, and the state of the controller that moves them, as buffers.

    :param num_costs: C.
    :param config: method, gains or rate, first and largest value of the multipliers.
    """

    def __init__(self, num_costs: int, config: MultiplierConfig) -> None:
        super().__init__()
        self.config = config
        start = initial_multipliers(
            num_costs, config.multiplier_init, integral_gain=config.multiplier_gains[1]
        )
        for name, value in start._asdict().items():
            self.register_buffer(name, value)

    @property
    def state(self) -> MultiplierState:
        """The state from which the next update starts."""
        return MultiplierState(*(self.get_buffer(name) for name in MultiplierState._fields))

    @property
    def values(self) -> Tensor:
        """The multipliers ``[C]``."""
        return self.get_buffer("multipliers")

    @torch.no_grad()
    def update(self, cost: Tensor, limit: Tensor, unit: Tensor) -> None:
        """Moves the multipliers by the surplus of ``cost [C]`` over ``limit [C]``, in parts of ``unit [C]``.

        All three share the unit of the costs, so that the multipliers do not depend on that unit.

        :func:`~fsrl_ext.functional.multiplier.dual_ascent` and
        :func:`~fsrl_ext.functional.multiplier.pid_control` give the equations.
        """
        config = self.config
        cost, limit = cost / unit, limit / unit
        if config.multiplier_method == "ascent":
            state = dual_ascent(
                self.state, cost, limit, lr=config.multiplier_lr, multiplier_max=config.multiplier_max
            )
        else:
            proportional, integral, derivative = config.multiplier_gains
            state = pid_control(
                self.state,
                cost,
                limit,
                gains=(proportional, integral, derivative),
                smoothing=config.multiplier_smoothing,
                multiplier_max=config.multiplier_max,
                surplus_max=config.multiplier_surplus_max,
            )
        for name, value in state._asdict().items():
            self.get_buffer(name).copy_(value)
