"""See images: pixels in [0, 1] with the channels first, and a small convolutional network.

Dimension letters: ``B`` batch, ``H`` height, ``W`` width, ``K`` channels, ``F`` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.errors import checked
from fsrl_ext.net.features import Features

# Channels, kernel size and stride of each layer (Mnih et al., Nature 2015).
_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
MIN_SIDE = 36
"""Smallest height and width of an image from which :class:`ConvNet` computes something."""

# Images in one forward pass without gradients, at most. The activations of so many 64 x 64 images take about
# 40 MB, and those of a whole collect of an on-policy algorithm would take gigabytes.
_BLOCK = 1024


def has_channels_first(shape: Sequence[int]) -> bool:
    """Tell whether an image of ``shape`` is ``[K, H, W]``, which the shorter of first and last axis decides.

    Axes of one length count as ``[H, W, K]``.
    """
    return shape[0] < shape[2]


def pixel_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return ``(K, H, W)`` of an image of shape ``[H, W, K]`` or ``[K, H, W]``."""
    first, second, third = shape
    return (first, second, third) if has_channels_first(shape) else (third, first, second)


class ConvNet(nn.Sequential):
    """Maps pixels ``[B, K, H, W]`` in [0, 1] to features ``[B, F]``.

    The convolutions are those of Mnih et al. (Nature 2015). The linear layer, the normalisation and the tanh
    behind them are those of Yarats et al. (arXiv 1910.01741), so the features lie in [-1, 1].

    :param channels: K.
    :param height: H, at least :data:`MIN_SIDE`.
    :param width: W, likewise.
    :param features: F.
    :raises ValueError: the image is smaller than :data:`MIN_SIDE`.
    """

    @checked(at_least_one=("channels", "height", "width", "features"))
    def __init__(self, channels: int, height: int, width: int, *, features: int = 64) -> None:
        if min(height, width) < MIN_SIDE:
            raise ValueError(
                f"height and width must be >= {MIN_SIDE} for the convolutions, got {height} and {width}"
            )
        sides = np.array([height, width])
        for _, kernel, stride in _LAYERS:
            sides = (sides - kernel) // stride + 1
        sizes = pairwise((channels, *(size for size, _, _ in _LAYERS)))
        convolutions = [
            module
            for (i, o), (_, kernel, stride) in zip(sizes, _LAYERS, strict=True)
            for module in (nn.Conv2d(i, o, kernel, stride), nn.ReLU())
        ]
        super().__init__(
            *convolutions,
            nn.Flatten(),
            nn.Linear(_LAYERS[-1][0] * int(sides.prod()), features),
            nn.LayerNorm(features),
            nn.Tanh(),
        )


class ImageFeatures(Features):
    """Computes features ``[B, F]`` of images by a network, such as :class:`ConvNet` or Tianshou's ``Net``.

    Images are ``[B, H, W, K]`` or ``[B, K, H, W]`` with numbers from 0 to 255, uint8 as environments return
    them. The network is called with float32 pixels ``[B, K, H, W]`` in [0, 1].

    :param network: the network, on a processor.
    :param shape: of one image; the shorter of its first and last axis has the channels.
    :param name: what messages call the network.
    :raises ValueError: the network is no module, does not take such pixels, or does not return ``[B, F]``.
    """

    takes_images = True

    def __init__(self, network: nn.Module, shape: Sequence[int], *, name: str = "network") -> None:
        if len(shape) != 3:
            raise ValueError(f"shape must have three axes, [H, W, K] or [K, H, W], got {tuple(shape)}")
        super().__init__(network, pixel_shape(shape), name=name)
        self.shape = tuple(shape)

    def forward(self, inputs: np.ndarray | Tensor) -> Tensor:
        """Return features ``[B, F]`` of images.

        :raises ValueError: the inputs are no images of the shape.
        """
        images = torch.as_tensor(inputs, device=self.like.device)
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"observations must be images {['B', *self.shape]}, got the shape {list(images.shape)}"
            )
        if torch.is_grad_enabled() or len(images) <= _BLOCK:
            return self._features(self._pixels(images))
        return torch.cat([self._features(self._pixels(block)) for block in images.split(_BLOCK)])

    def _pixels(self, images: Tensor) -> Tensor:
        """Return pixels ``[B, K, H, W]`` in [0, 1]."""
        if not has_channels_first(self.shape):
            images = images.permute(0, 3, 1, 2)
        return images.to(self.like.dtype) / 255.0
