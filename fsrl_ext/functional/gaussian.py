"""Diagonal Gaussians of on-policy learning: density, divergence, entropy.

Dimension letters: ``B`` batch, ``A`` action. A Gaussian is a mean and standard deviations, both ``[B, A]``.
"""

from __future__ import annotations

import math

from torch import Tensor


def log_density(mean: Tensor, std: Tensor, act: Tensor) -> Tensor:
    """Log density ``[B]`` of actions ``[B, A]`` as drawn, before any clipping."""
    white = (act - mean) / std
    return -(0.5 * white.square() + std.log() + 0.5 * math.log(2.0 * math.pi)).sum(-1)


def kl_divergence(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    r"""Divergence :math:`KL(p \| q)` in nats, ``[B]``, of p (mean, std) from q (the other).

    .. math:: \sum_i \log \frac{\sigma_q}{\sigma_p} + \frac{\sigma_p^2 + (\mu_p - \mu_q)^2}{2 \sigma_q^2}
        - \frac12
    """
    ratio = (std / other_std).square()
    distance = ((mean - other_mean) / other_std).square()
    return 0.5 * (ratio - ratio.log() + distance - 1.0).sum(-1)


def entropy(std: Tensor) -> Tensor:
    """Differential entropy in nats, ``[B]``."""
    return (std.log() + 0.5 * (1.0 + math.log(2.0 * math.pi))).sum(-1)
