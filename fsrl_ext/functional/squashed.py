"""Gaussians squashed into the action box by a hyperbolic tangent.

Dimension letters: ``B`` batch, ``A`` action.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import softplus


def squash(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    r"""Actions :math:`a = \tanh(u)`, :math:`u = \mu + \sigma \epsilon`, and their log density.

    .. math:: \log \pi(a) = \sum_i \log N(u_i; \mu_i, \sigma_i) - 2 (\log 2 - u_i - softplus(-2 u_i))

    Haarnoja et al. (arXiv 1801.01290, appendix C), with :math:`\log(1 - \tanh^2 u)` in a form that stays
    finite for every u. Differentiable in mean and standard deviation.

    :param mean: ``[B, A]``, before squashing; ``std`` and ``noise`` likewise.
    :return: actions ``[B, A]`` inside the box and log densities ``[B]``.
    """
    raw = mean + std * noise
    normal = -0.5 * noise.square() - std.log() - 0.5 * math.log(2.0 * math.pi)
    volume = 2.0 * (math.log(2.0) - raw - softplus(-2.0 * raw))
    return raw.tanh(), (normal - volume).sum(-1)
