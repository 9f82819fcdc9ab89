"""The features of images that actors and critics see, and which tasks have images."""

from __future__ import annotations

from fsrl_ext.experiment.network_path import make_network
from fsrl_ext.net import ConvNet, ImageFeatures
from fsrl_ext.net.images import pixel_shape


def image_features(shape: tuple[int, ...], name: str, path: str | None) -> ImageFeatures:
    """Features of images of a shape, by convolutions or by a network of the user's.

    :param shape: ``[H, W, K]`` or ``[K, H, W]``, K channels.
    :param name: ``"actor"`` or ``"critic"``, the setting of ``path``.
    :param path: import path of the function that makes the network of the user's; ``None`` for convolutions.
    :raises ValueError: if the image is too small for the convolutions, or the network does not fit.
    """
    pixels = pixel_shape(shape)
    network = ConvNet(*pixels) if path is None else make_network(name, path, pixels)
    return ImageFeatures(network, shape, name=name)
