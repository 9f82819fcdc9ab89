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


def make_picture_net(shape: tuple[int, int, int]) -> nn.Module:
    """Tianshou's own network, which flattens pixels."""
    return Net(state_shape=shape, hidden_sizes=[16])


class PictureNet(nn.Module):
    """A network for pixels with the call of those of Tianshou's Atari examples."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(shape[0], 4, 8, 8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(6))
        self.net(torch.zeros(1, *shape))

    def forward(self, obs: Tensor, state: object = None, info: object = None) -> tuple[Tensor, object]:
        return self.net(torch.as_tensor(obs, dtype=torch.float32)), state
