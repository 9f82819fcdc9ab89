"""CVPO's M-step: weighted likelihood under decoupled Gaussian trust regions.

Sources: Liu et al. 2022 (arXiv 2201.11927), section 4.2; Abdolmaleki et al. 2018b (arXiv 1812.02256),
section 4.2.1, for the decoupled KL.

Dimension letters: ``B`` batch, ``N`` sampled actions, ``A`` action. A Gaussian is a mean ``[B, A]`` and a
``scale``: standard deviations ``[B, A]`` (diagonal) or a lower Cholesky factor ``[B, A, A]`` (full).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_2PI = math.log(2.0 * math.pi)


def is_full_covariance(mean: Tensor, scale: Tensor) -> bool:
    """Whether ``scale`` is a Cholesky factor rather than standard deviations."""
    return scale.dim() == mean.dim() + 1


def _log_det_scale(mean: Tensor, scale: Tensor) -> Tensor:
    """``log det L``, i.e. half the log determinant of the covariance, ``[B]``."""
    if is_full_covariance(mean, scale):
        scale = scale.diagonal(dim1=-2, dim2=-1)
    return scale.log().sum(-1)


def _whiten(mean: Tensor, scale: Tensor, difference: Tensor) -> Tensor:
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
    white = _whiten(mean, scale, actions - mean.unsqueeze(-2))
    log_det = _log_det_scale(mean, scale).unsqueeze(-1)
    return -0.5 * (white.square().sum(-1) + mean.shape[-1] * _LOG_2PI) - log_det


def decoupled_kl(mean_old: Tensor, scale_old: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    r"""The two parts of the KL divergence between old and new Gaussian, each with the other part fixed.

    .. math::
        KL_\mu &= \tfrac12 (\mu - \mu_{old})^T \Sigma_{old}^{-1} (\mu - \mu_{old}) \\
        KL_\Sigma &= \tfrac12 (\log\tfrac{|\Sigma|}{|\Sigma_{old}|} - n + tr\,\Sigma^{-1}\Sigma_{old})

    :return: ``(kl_mean, kl_scale)``, each averaged over the batch (0-dim).
    """
    white = _whiten(mean_old, scale_old, (mean - mean_old).unsqueeze(-2)).squeeze(-2)
    kl_mean = 0.5 * white.square().sum(-1).mean()
    if is_full_covariance(mean, scale):
        ratio = torch.linalg.solve_triangular(scale, scale_old, upper=False)
        trace = ratio.square().sum((-1, -2))
    else:
        trace = (scale_old / scale).square().sum(-1)
    log_det = 2.0 * (_log_det_scale(mean, scale) - _log_det_scale(mean_old, scale_old))
    kl_scale = 0.5 * (log_det - mean.shape[-1] + trace).mean()
    return kl_mean, kl_scale


def weighted_log_likelihood(
    weights: Tensor,
    actions: Tensor,
    mean_old: Tensor,
    scale_old: Tensor,
    mean: Tensor,
    scale: Tensor,
) -> Tensor:
    r"""``mean_i sum_j q_ij [log N(a_ij; mu, Sigma_old) + log N(a_ij; mu_old, Sigma)]``, 0-dim.

    Splitting the density keeps the mean's gradient from shrinking or growing the covariance
    (arXiv 1812.02256, section 4.2.1). The weights of each state sum to one; the authors of CVPO divide by
    the number of samples besides, which only rescales the KL multipliers.

    :param weights: ``[B, N]``, constant.
    :param actions: ``[B, N, A]`` raw samples of the old policy.
    """
    log_prob = gaussian_log_prob(mean, scale_old, actions)
    log_prob = log_prob + gaussian_log_prob(mean_old, scale, actions)
    return (weights * log_prob).sum(-1).mean()


def update_kl_multipliers(
    multipliers: Tensor, kl: Tensor, kl_bound: Tensor, *, lr: float, multiplier_max: float
) -> Tensor:
    """One projected ascent step on the KL multipliers, in units of the bound.

    ``alpha <- clip(alpha + lr * (KL / bound - 1), 0, multiplier_max)``. The *stored* value is clipped, so it
    cannot wind up below zero and then lag behind a violated trust region.

    :param multipliers: ``[2]`` for mean and covariance; likewise ``kl`` and ``kl_bound``.
    :return: the new multipliers ``[2]``; inputs stay as they are. A non-finite KL leaves them unchanged.
    """
    step = torch.nan_to_num(kl / kl_bound - 1.0, nan=0.0, posinf=0.0, neginf=0.0)
    return (multipliers + lr * step).clamp(0.0, multiplier_max)
