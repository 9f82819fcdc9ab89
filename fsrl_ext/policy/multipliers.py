"""Lagrange multipliers that are saved with their policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fsrl_ext.functional.multiplier import MultiplierState, dual_ascent, initial_multipliers, pid_control
from fsrl_ext.policy.multiplier_config import MultiplierConfig


class Multipliers(nn.Module):
    """One multiplier per cost and the state of the controller that moves them, as buffers.

    :param num_costs: C.
    :param config: method, gains, cap and start.
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
        """What the next update starts from."""
        return MultiplierState(*(self.get_buffer(name) for name in MultiplierState._fields))

    @property
    def values(self) -> Tensor:
        """The multipliers ``[C]``."""
        return self.get_buffer("multipliers")

    @torch.no_grad()
    def update(self, cost: Tensor, limit: Tensor) -> None:
        """Moves the multipliers by one cost ``[C]`` against its limit ``[C]``, in the same unit."""
        config = self.config
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
