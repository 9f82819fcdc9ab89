"""Gaussian policies: densities, sampling, squashing, divergences.

Dimension letters: ``B`` batch, ``N`` sampled actions, ``A`` action. A Gaussian is a mean ``[B, A]`` and
either its standard deviations, ``std [B, A]``, or a ``scale``: standard deviations ``[B, A]`` (diagonal) or a
lower Cholesky factor ``[B, A, A]`` of the covariance (full).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_2PI = math.log(2.0 * math.pi)


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


def is_full_covariance(mean: Tensor, scale: Tensor) -> bool:
    """Whether ``scale`` is a Cholesky factor rather than standard deviations."""
    return scale.dim() == mean.dim() + 1


def log_det_scale(mean: Tensor, scale: Tensor) -> Tensor:
    """``log det L``, i.e. half the log determinant of the covariance, ``[B]``."""
    if is_full_covariance(mean, scale):
        scale = scale.diagonal(dim1=-2, dim2=-1)
    return scale.log().sum(-1)


def whiten(mean: Tensor, scale: Tensor, difference: Tensor) -> Tensor:
    """``L^-1 difference`` for differences ``[B, N, A]``: a triangular solve, never an inverse."""
    if is_full_covariance(mean, scale):
        solved = torch.linalg.solve_triangular(scale, difference.transpose(-1, -2), upper=False)
        return solved.transpose(-1, -2)
    return difference / scale.unsqueeze(-2)


def sample_actions(
    mean: Tensor, scale: Tensor, num_samples: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draws ``[B, N, A]`` actions from the Gaussian, without gradient and unclipped."""
    shape = (mean.shape[0], num_samples, mean.shape[1])
    noise = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)
    if is_full_covariance(mean, scale):
        noise = noise @ scale.transpose(-1, -2)
    else:
        noise = noise * scale.unsqueeze(-2)
    return mean.unsqueeze(-2) + noise


def gaussian_log_prob(mean: Tensor, scale: Tensor, actions: Tensor) -> Tensor:
    """Log density ``[B, N]`` of raw (unclipped) actions ``[B, N, A]``."""
    white = whiten(mean, scale, actions - mean.unsqueeze(-2))
    log_det = log_det_scale(mean, scale).unsqueeze(-1)
    return -0.5 * (white.square().sum(-1) + mean.shape[-1] * LOG_2PI) - log_det


def decoupled_kl(mean_old: Tensor, scale_old: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    r"""The two parts of the KL divergence between old and new Gaussian, each with the other part fixed.

    .. math::
        KL_\mu &= \tfrac12 (\mu - \mu_{old})^T \Sigma_{old}^{-1} (\mu - \mu_{old}) \\
        KL_\Sigma &= \tfrac12 (\log\tfrac{|\Sigma|}{|\Sigma_{old}|} - n + tr\,\Sigma^{-1}\Sigma_{old})

    :return: ``(kl_mean, kl_scale)``, each averaged over the batch (0-dim).
    """
    white = whiten(mean_old, scale_old, (mean - mean_old).unsqueeze(-2)).squeeze(-2)
    kl_mean = 0.5 * white.square().sum(-1).mean()
    if is_full_covariance(mean, scale):
        ratio = torch.linalg.solve_triangular(scale, scale_old, upper=False)
        trace = ratio.square().sum((-1, -2))
    else:
        trace = (scale_old / scale).square().sum(-1)
    log_det = 2.0 * (log_det_scale(mean, scale) - log_det_scale(mean_old, scale_old))
    kl_scale = 0.5 * (log_det - mean.shape[-1] + trace).mean()
    return kl_mean, kl_scale
