"""The optimiser of actors and critics."""

from __future__ import annotations

import torch
from torch import nn

from fsrl_ext.policy.optimise import Adam


def adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with one kernel for all parameters."""
    return Adam(module.parameters(), lr=lr)
