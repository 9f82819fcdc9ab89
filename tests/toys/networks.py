"""Networks as users write them, by import path: ``toys.networks:make_features``."""

from __future__ import annotations

import torch
from tianshou.utils.net.common import Net
from torch import Tensor, nn


def make_features(inputs: int) -> nn.Module:
    """A plain PyTorch network."""
    return nn.Sequential(nn.Linear(inputs, 12), nn.LayerNorm(12), nn.Tanh(), nn.Linear(12, 7), nn.SiLU())


def make_net(inputs: int) -> nn.Module:
    """Tianshou's own network, as it is."""
    return Net(state_shape=inputs, hidden_sizes=[16, 8])


class Residual(nn.Module):
    """A class that is called with the number of inputs."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, 8), nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs))
        return hidden + torch.tanh(self.second(hidden))


def make_number(inputs: int) -> int:
    """No network."""
    return inputs


def make_narrow(inputs: int) -> nn.Module:
    """A network for another number of inputs."""
    return nn.Linear(inputs + 1, 4)


def make_flat(inputs: int) -> nn.Module:
    """A network that loses the batch."""
    return nn.Flatten(0)


def make_nothing(inputs: int) -> nn.Module:
    """A function that fails."""
    raise KeyError("sizes")


_ONE = nn.Linear(3, 4)


def make_same(inputs: int) -> nn.Module:
    """A function that returns the same network again."""
    return _ONE


NOT_A_FUNCTION = 3
