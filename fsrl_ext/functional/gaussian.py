"""Gaussian policies: densities, divergences, sampling, squashing.

Dimension letters: ``B`` batch, ``N`` sampled actions, ``A`` action. A Gaussian is a mean ``[B, A]`` with

- ``std [B, A]``: standard deviations, of a diagonal Gaussian (on-policy algorithms and SAC);
- or ``scale``: standard deviations ``[B, A]`` or a lower Cholesky factor ``[B, A, A]`` of the covariance
  (CVPO, whose actor may have a full covariance).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fsrl_ext.errors import checked

LOG_2PI = math.log(2.0 * math.pi)


@checked(shapes={"mean": "... A", "std": "... A", "act": "... A"})
def log_density(mean: Tensor, std: Tensor, act: Tensor) -> Tensor:
    """Return the log density ``[B]`` of one action ``[B, A]`` per state, as drawn, before any clipping."""
    white = (act - mean) / std
    return -(0.5 * white.square() + std.log() + 0.5 * LOG_2PI).sum(-1)


@checked(shapes={"std": "... A"})
def entropy(std: Tensor) -> Tensor:
    """Return the differential entropy in nats, ``[B]``."""
    return (std.log() + 0.5 * (1.0 + LOG_2PI)).sum(-1)


@checked(shapes={"mean": "... A", "std": "... A", "other_mean": "... A", "other_std": "... A"})
def kl_divergence(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    r"""Return the divergence :math:`KL(p \| q)` in nats, ``[B]``, of p (mean, std) from q (the other).

    This is the trust region of the on-policy algorithms; :func:`decoupled_kl` is that of CVPO.

    .. math:: \sum_i \log \frac{\sigma_q}{\sigma_p} + \frac{\sigma_p^2 + (\mu_p - \mu_q)^2}{2 \sigma_q^2}
        - \frac{1}{2}
    """
    ratio = (std / other_std).square()
    distance = ((mean - other_mean) / other_std).square()
    return 0.5 * (ratio - ratio.log() + distance - 1.0).sum(-1)


@checked(shapes={"mean_old": "B A", "mean": "B A"})
def decoupled_kl(mean_old: Tensor, scale_old: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the two parts of :math:`KL(old \| new)` in nats, each with the other part fixed.

    This is the trust region of CVPO's M-step (arXiv 1812.02256, section 4.2.1). The first part moves the mean
    alone and the second part the covariance alone, so they do not add up to :func:`kl_divergence`.

    .. math::
        KL_\mu &= \tfrac12 (\mu - \mu_{old})^T \Sigma_{old}^{-1} (\mu - \mu_{old}) \\
        KL_\Sigma &= \tfrac12 (\log\tfrac{|\Sigma|}{|\Sigma_{old}|} - n + tr\,\Sigma^{-1}\Sigma_{old})

    :return: ``(kl_mean, kl_scale)``, each averaged over the batch (0-dim).
    """
    full = is_full_covariance(mean, scale)
    if is_full_covariance(mean_old, scale_old) != full:
        raise ValueError(f"scale_old must have the shape of scale, got {list(scale_old.shape)}")
    if full:
        # Triangular solves are more exact than an inverse.
        difference = (mean - mean_old).unsqueeze(-1)
        white = torch.linalg.solve_triangular(scale_old, difference, upper=False).squeeze(-1)
        ratio = torch.linalg.solve_triangular(scale, scale_old, upper=False)
        trace = ratio.square().sum((-1, -2))
    else:
        white = (mean - mean_old) / scale_old
        trace = (scale_old / scale).square().sum(-1)
    kl_mean = 0.5 * white.square().sum(-1).mean()
    log_det = 2.0 * (log_det_scale(mean, scale) - log_det_scale(mean_old, scale_old))
    kl_scale = 0.5 * (log_det - mean.shape[-1] + trace).mean()
    return kl_mean, kl_scale


@checked()
def is_full_covariance(mean: Tensor, scale: Tensor) -> bool:
    """Say whether ``scale`` is a Cholesky factor rather than standard deviations.

    :raises ValueError: if it is neither of them for this mean.
    """
    if scale.shape == mean.shape:
        return False
    if scale.shape != (*mean.shape, mean.shape[-1]):
        raise ValueError(
            f"scale must have the shape of mean {list(mean.shape)}, or {[*mean.shape, mean.shape[-1]]}, "
            f"got {list(scale.shape)}"
        )
    return True


@checked(shapes={"mean": "B A"})
def log_det_scale(mean: Tensor, scale: Tensor) -> Tensor:
    """Return ``log det L``, half the log determinant of the covariance, ``[B]``."""
    if is_full_covariance(mean, scale):
        scale = scale.diagonal(dim1=-2, dim2=-1)
    return scale.log().sum(-1)


@checked(shapes={"mean": "B A"}, at_least_one=("num_samples",))
def sample_actions(
    mean: Tensor,
    scale: Tensor,
    num_samples: int,
    generator: torch.Generator | None = None,
    *,
    stratified: bool = False,
) -> Tensor:
    """Draw ``[B, N, A]`` actions from the Gaussian, without clipping.

    :param stratified: whether the actions of a state come from :func:`stratified_noise`; independent ones
        otherwise.
    """
    is_full_covariance(mean, scale)  # checks the scale's shape
    shape = (mean.shape[0], num_samples, mean.shape[1])
    if stratified:
        noise = stratified_noise(shape, dtype=mean.dtype, device=mean.device, generator=generator)
    else:
        noise = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)
    return mean.unsqueeze(-2) + scale_noise(noise, scale)


@checked()
def stratified_noise(
    shape: tuple[int, int, int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw standard normal noise ``[B, N, A]``, a Latin hypercube for each of the ``B`` rows.

    Every single sample is standard normal. In each dimension, each of the N intervals of probability 1 / N
    holds exactly one of the N samples, so that means over the samples of a smooth function have a smaller
    variance than those of independent samples (Stein 1987, Technometrics 29).
    """
    batch, count, dim = shape
    uniform = torch.rand(batch, dim, count, dtype=dtype, device=device, generator=generator)
    order = torch.rand(batch, dim, count, dtype=dtype, device=device, generator=generator).argsort(-1)
    # The largest number below 1 and its mirror image; at 0 and 1 the noise would be infinite.
    edge = 1.0 - torch.finfo(dtype).eps / 2
    signed = uniform.add_(order).mul_(2.0 / count).sub_(1.0).clamp_(-edge, edge)
    return signed.erfinv_().mul_(math.sqrt(2.0)).mT.contiguous()


@checked()
def scale_noise(noise: Tensor, scale: Tensor) -> Tensor:
    """Return unit noise ``[B, N, A]`` times the deviations or the Cholesky factor in ``scale``."""
    if scale.dim() == noise.dim():
        return noise @ scale.transpose(-1, -2)
    return noise * scale.unsqueeze(-2)


@checked(shapes={"mean": "... A", "std": "... A", "noise": "... A"})
def squash(mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return actions :math:`a = \tanh(u)`, :math:`u = \mu + \sigma \epsilon`, with their log density.

    .. math:: \log \pi(a) = \sum_i \log N(u_i; \mu_i, \sigma_i) - 2 (\log 2 - u_i - softplus(-2 u_i))

    Source: Haarnoja et al. (arXiv 1801.01290, appendix C), with :math:`\log(1 - \tanh^2 u)` in a form that
    stays finite for every u. Differentiable in mean and standard deviation.

    :param mean: ``[B, A]``, before squashing; ``std`` and ``noise`` likewise.
    :return: actions ``[B, A]`` inside the box and log densities ``[B]``.
    """
    raw = mean + std * noise
    normal = -0.5 * noise.square() - std.log() - 0.5 * LOG_2PI
    volume = 2.0 * (math.log(2.0) - raw - softplus(-2.0 * raw))
    return raw.tanh(), (normal - volume).sum(-1)
