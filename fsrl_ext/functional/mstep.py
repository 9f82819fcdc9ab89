r"""CVPO's M-step: weighted likelihood under decoupled Gaussian trust regions.

With the weights ``q [B, N]`` of the E-step, whose rows sum to one, and actions ``a [B, N, A]`` of the old
policy, the loss is::

    - mean_i sum_j q_ij [log N(a_ij; mu, Sigma_old) + log N(a_ij; mu_old, Sigma)]
    + alpha_mu (KL_mu - eps_mu) + alpha_Sigma (KL_Sigma - eps_Sigma)

Splitting the density keeps the mean's gradient from shrinking or growing the covariance. The authors of CVPO
divide the likelihood by the number of samples besides, which only rescales the multipliers alpha.

Sources: Liu et al. 2022 (arXiv 2201.11927), section 4.2; Abdolmaleki et al. 2018b (arXiv 1812.02256),
section 4.2.1, for the split density and the decoupled KL.

For discrete actions the weights are those of all actions, and the loss is a cross-entropy under one trust
region, :func:`categorical_mstep_loss`.

Dimension letters: ``B`` batch, ``N`` sampled actions, ``A`` action. Means ``[B, A]`` and scales are those of
:mod:`fsrl_ext.functional.gaussian`: standard deviations ``[B, A]`` or Cholesky factors ``[B, A, A]``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fsrl_ext.errors import checked
from fsrl_ext.functional.gaussian import LOG_2PI, decoupled_kl, is_full_covariance, log_det_scale


class WeightedMoments(NamedTuple):
    """Moments of the weighted samples around the old mean, all that the M-step's likelihood needs of them."""

    first: Tensor
    """``[B, A]`` weighted mean of the differences."""
    second: Tensor
    """Weighted mean of their squares ``[B, A]`` (diagonal) or outer products ``[B, A, A]`` (full)."""


@checked(shapes={"weights": "B N", "actions": "B N A", "mean_old": "B A"})
def weighted_moments(
    weights: Tensor, actions: Tensor, mean_old: Tensor, scale_old: Tensor, *, control_variate: bool = False
) -> WeightedMoments:
    r"""Compute the moments of actions ``[B, N, A]`` under weights ``[B, N]`` whose rows sum to one.

    :param control_variate: whether to replace the moments of the unweighted samples by those of the Gaussian
        that they were drawn from, which are known:

        .. math:: \sum_j (q_j - \tfrac1N)\, (a_j - \mu) \qquad \Sigma + \sum_j (q_j - \tfrac1N)\,
            (a_j - \mu)(a_j - \mu)^T

        The expectation stays the same, and the noise of the samples falls, since the weights are near
        uniform. A second moment can then be negative in single states.
    """
    difference = actions - mean_old.unsqueeze(-2)
    row = weights.unsqueeze(-2)
    if control_variate:
        row = row - 1.0 / weights.shape[-1]
    first = (row @ difference).squeeze(-2)
    if is_full_covariance(mean_old, scale_old):
        second = (difference.mT * row) @ difference
        return WeightedMoments(first, second + scale_old @ scale_old.mT if control_variate else second)
    second = (row @ difference.square()).squeeze(-2)
    return WeightedMoments(first, second + scale_old.square() if control_variate else second)


class MStepLoss(NamedTuple):
    """The M-step's loss and its gradients at the actor's output."""

    loss: Tensor
    """0-dim."""
    grad_mean: Tensor
    """``[B, A]``."""
    grad_scale: Tensor
    """``[B, A]`` or ``[B, A, A]``."""


@checked(shapes={"mean_old": "B A", "mean": "B A", "kl": "2", "kl_bound": "2", "multipliers": "2"})
def mstep_loss(
    moments: WeightedMoments,
    mean_old: Tensor,
    scale_old: Tensor,
    mean: Tensor,
    scale: Tensor,
    *,
    kl: Tensor,
    kl_bound: Tensor,
    multipliers: Tensor,
) -> MStepLoss:
    """Compute the M-step's loss (see above) with its gradients.

    The likelihood is written through the samples' moments, so the cost of an M-step iteration does not depend
    on the number of samples. Diagonal gradients are in closed form, those of a Cholesky factor come from
    automatic differentiation of ``[B, A, A]`` tensors.

    :param moments: of :func:`weighted_moments`.
    :param kl: ``[2]`` from :func:`~fsrl_ext.functional.gaussian.decoupled_kl`; likewise ``kl_bound`` (eps)
        and ``multipliers`` (alpha).
    """
    penalty = multipliers @ (kl - kl_bound)
    if is_full_covariance(mean, scale):
        return _full_mstep_loss(moments, mean_old, scale_old, mean, scale, penalty, multipliers)
    batch, dim = mean.shape
    shift = mean - mean_old
    precision_old = scale_old.square().reciprocal()
    variance = scale.square()
    # E_w (a - mean)^2 = second - 2 shift first + shift^2
    squares = (moments.second - 2.0 * shift * moments.first + shift.square()) * precision_old
    spread = moments.second / variance
    log_dets = (scale * scale_old).log()
    loss = (0.5 * (squares + spread) + log_dets).sum() / batch + dim * LOG_2PI + penalty
    grad_mean = ((1.0 + multipliers[0]) * shift - moments.first) * (precision_old / batch)
    pull = (moments.second + multipliers[1] * scale_old.square()) / variance
    grad_scale = ((1.0 + multipliers[1]) - pull) / (batch * scale)
    return MStepLoss(loss, grad_mean, grad_scale)


@torch.enable_grad()
def _full_mstep_loss(
    moments: WeightedMoments,
    mean_old: Tensor,
    scale_old: Tensor,
    mean: Tensor,
    scale: Tensor,
    penalty: Tensor,
    multipliers: Tensor,
) -> MStepLoss:
    mean, scale = mean.detach().requires_grad_(), scale.detach().requires_grad_()
    shift = (mean - mean_old).unsqueeze(-1)
    first = moments.first.unsqueeze(-1)
    centred = moments.second - shift @ first.mT - first @ shift.mT + shift @ shift.mT
    log_dets = log_det_scale(mean, scale) + log_det_scale(mean_old, scale_old)
    squares = _mahalanobis_trace(scale_old, centred) + _mahalanobis_trace(scale, moments.second)
    loss = (0.5 * squares + log_dets).mean() + mean.shape[-1] * LOG_2PI
    constraint = multipliers @ torch.stack(decoupled_kl(mean_old, scale_old, mean, scale))
    grad_mean, grad_scale = torch.autograd.grad(loss + constraint, (mean, scale))
    return MStepLoss(loss.detach() + penalty, grad_mean, grad_scale)


def _mahalanobis_trace(scale: Tensor, second: Tensor) -> Tensor:
    """Return ``tr (L L^T)^-1 M`` ``[B]`` for a symmetric M ``[B, A, A]``."""
    half = torch.linalg.solve_triangular(scale, second, upper=False)
    whole = torch.linalg.solve_triangular(scale, half.mT, upper=False)
    return whole.diagonal(dim1=-2, dim2=-1).sum(-1)


class CategoricalMStepLoss(NamedTuple):
    """The M-step's loss for discrete actions and its gradient at the actor's output."""

    loss: Tensor
    """0-dim."""
    grad_logits: Tensor
    """``[B, A]``."""


@checked(
    shapes={
        **{"weights": "B A", "log_old": "B A", "log_probs": "B A"},
        **{"kl": "1", "kl_bound": "1", "multipliers": "1"},
    }
)
def categorical_mstep_loss(
    weights: Tensor, log_old: Tensor, log_probs: Tensor, *, kl: Tensor, kl_bound: Tensor, multipliers: Tensor
) -> CategoricalMStepLoss:
    r"""Compute the M-step's loss for discrete actions, with its gradient in the logits in closed form.

    .. math:: -\frac1B \sum_{ij} q_{ij} \log \pi(a_j | s_i) + \alpha (KL(\pi_{old} \| \pi) - \epsilon)

    :param weights: q, ``[B, A]``, of all A actions; each row sums to one.
    :param log_old: log probabilities of the old policy ``[B, A]``.
    :param log_probs: those of the actor.
    :param kl: ``[1]`` mean KL divergence of the old policy from the actor, in nats; likewise ``kl_bound``
        (eps) and ``multipliers`` (alpha).
    """
    batch = len(weights)
    loss = multipliers @ (kl - kl_bound) - (weights * log_probs).sum() / batch
    pull = weights + multipliers * log_old.exp()
    return CategoricalMStepLoss(loss, ((1.0 + multipliers) * log_probs.exp() - pull) / batch)


@checked(shapes={"multipliers": "K", "kl": "K", "kl_bound": "K", "lr": "K", "multiplier_max": "K"})
def update_kl_multipliers(
    multipliers: Tensor, kl: Tensor, kl_bound: Tensor, *, lr: Tensor, multiplier_max: Tensor
) -> Tensor:
    """Take one projected ascent step on the KL multipliers, in units of the bound.

    ``alpha <- clip(alpha + lr * (KL / bound - 1), 0, multiplier_max)``. The *stored* value is clipped, so it
    cannot fall below zero for many steps and then lag behind a violated trust region.

    :param multipliers: ``[K]``, K is 2 for mean and covariance and 1 for discrete actions; likewise all other
        arguments.
    :return: the new multipliers ``[K]``; a non-finite KL leaves its multiplier unchanged.
    """
    step = torch.nan_to_num(kl / kl_bound - 1.0, nan=0.0, posinf=0.0, neginf=0.0)
    return (multipliers + lr * step).clamp(min=0.0).minimum(multiplier_max)
