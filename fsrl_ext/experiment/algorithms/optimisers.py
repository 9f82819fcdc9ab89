"""The optimiser of actors and critics."""

from __future__ import annotations

import torch
from torch import nn


def adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with one kernel for all parameters."""
    return torch.optim.Adam(module.parameters(), lr=lr, fused=True)
