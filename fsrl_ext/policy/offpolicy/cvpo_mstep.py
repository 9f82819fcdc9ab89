"""The M-step of CVPO on a batch: fits the actor to the E-step's weights inside trust regions.

Dimension letters: ``B`` batch, ``A`` action, ``G`` trust regions.

Source: Abdolmaleki et al., "Maximum a Posteriori Policy Optimisation", ICLR 2018 (arXiv 1806.06920), and
arXiv 1812.02256, section 4.2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsrl_ext.errors import check_finite
from fsrl_ext.functional.distribution import Categorical, distribution
from fsrl_ext.functional.gaussian import decoupled_kl, is_full_covariance
from fsrl_ext.functional.mstep import (
    WeightedMoments,
    categorical_mstep_loss,
    mstep_loss,
    update_kl_multipliers,
)

ActorStep = Callable[[Sequence[Tensor], Sequence[Tensor]], None]
"""Moves the actor against the gradients of the loss in its outputs."""


class TrustRegions(NamedTuple):
    """The trust regions of an actor: those of mean and covariance, or the only one of discrete actions."""

    multipliers: Tensor
    """``[G]``; changed in place."""
    bounds: Tensor
    """``[G]``, in nats."""
    lr: Tensor
    """``[G]`` change of each multiplier per relative violation of its bound."""
    multiplier_max: Tensor
    """``[G]``."""

    def next_multipliers(self, kl: Tensor) -> Tensor:
        """Moves the multipliers by the divergences ``kl [G]`` and returns them."""
        multipliers = update_kl_multipliers(
            self.multipliers, kl, self.bounds, lr=self.lr, multiplier_max=self.multiplier_max
        )
        self.multipliers.copy_(multipliers)
        return multipliers


def fit_gaussian(
    actor: nn.Module,
    obs: Tensor,
    moments: WeightedMoments,
    old_mean: Tensor,
    old_scale: Tensor,
    mean: Tensor,
    scale: Tensor,
    *,
    regions: TrustRegions,
    iterations: int,
    step_actor: ActorStep,
) -> dict[str, Tensor]:
    """Fits a Gaussian actor to the weighted actions inside the trust regions of mean and covariance.

    :param actor: gives mean and scale, and a state.
    :param obs: ``[B, O]``.
    :param moments: moments of the weighted actions.
    :param old_mean: ``[B, A]`` of the old policy at ``obs``.
    :param old_scale: scale of the old policy at ``obs``.
    :param mean: ``[B, A]`` of the actor at ``obs``, with its graph, for the first iteration.
    :param scale: scale of the actor at ``obs``, likewise.
    :param regions: those of mean and covariance.
    :param iterations: steps of the optimiser, >= 1.
    :param step_actor: takes such a step.
    :return: 0-dim numbers to log.
    """
    for iteration in range(iterations):
        if iteration:
            mean, scale = actor(obs)[0]
        # KL multipliers, loss, and the loss's gradient in mean and scale
        with torch.no_grad():
            kl = torch.stack(decoupled_kl(old_mean, old_scale, mean, scale))
            multipliers = regions.next_multipliers(kl)
            step = mstep_loss(
                moments,
                old_mean,
                old_scale,
                mean,
                scale,
                kl=kl,
                kl_bound=regions.bounds,
                multipliers=multipliers,
            )
        if iteration:
            check_finite(step.loss, "actor loss")
        step_actor((mean, scale), (step.grad_mean, step.grad_scale))
    kl_relative = kl / regions.bounds
    deviations = scale.detach()
    if is_full_covariance(mean, scale):
        deviations = deviations.square().sum(-1).sqrt()
    return {
        "loss/actor": step.loss,
        "mstep/kl_mean_relative": kl_relative[0],
        "mstep/kl_scale_relative": kl_relative[1],
        "mstep/multiplier_mean": multipliers[0],
        "mstep/multiplier_scale": multipliers[1],
        "policy/std": deviations.mean(),
    }


def fit_categorical(
    actor: nn.Module,
    obs: Tensor,
    weights: Tensor,
    old: Categorical,
    logits: Tensor,
    *,
    regions: TrustRegions,
    iterations: int,
    step_actor: ActorStep,
) -> dict[str, Tensor]:
    """Fits a categorical actor to the weights of all discrete actions inside one trust region.

    :param actor: gives logits, and a state.
    :param obs: ``[B, O]``.
    :param weights: ``[B, A]``.
    :param old: the old policy at ``obs``.
    :param logits: ``[B, A]`` of the actor at ``obs``, with their graph, for the first iteration.
    :param regions: the only one.
    :param iterations: as for :func:`fit_gaussian`, and so is ``step_actor``.
    :return: 0-dim numbers to log.
    """
    for iteration in range(iterations):
        if iteration:
            logits = actor(obs)[0]
        # KL multiplier, loss, and the loss's gradient in the logits
        with torch.no_grad():
            dist = distribution(logits)
            kl = old.kl(dist).mean().reshape(1)
            multipliers = regions.next_multipliers(kl)
            step = categorical_mstep_loss(
                weights,
                old.log_probs,
                dist.log_probs,
                kl=kl,
                kl_bound=regions.bounds,
                multipliers=multipliers,
            )
        if iteration:
            check_finite(step.loss, "actor loss")
        step_actor((logits,), (step.grad_logits,))
    return {
        "loss/actor": step.loss,
        "mstep/kl_relative": (kl / regions.bounds)[0],
        "mstep/multiplier": multipliers[0],
        "policy/entropy": dist.entropy().mean(),
    }
