"""Surrogates of a rollout as functions of flat parameters, for steps that are differentiated.

Dimension letters: ``T`` steps, ``P`` parameters, ``m`` constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fsrl_ext.functional.conjugate_gradient import FisherVectorProduct, InverseMetric, flatten, unflatten
from fsrl_ext.functional.gaussian import entropy, kl_divergence, log_density
from fsrl_ext.functional.meta_gradient import SurrogateLoss
from fsrl_ext.policy.onpolicy.base import Rollout
from fsrl_ext.policy.onpolicy.config import TrustRegionConfig


def surrogate_loss(
    actor: nn.Module,
    rollout: Rollout,
    advantage: Tensor,
    cost_advantages: Tensor,
    *,
    entropy_weight: float = 0.0,
) -> SurrogateLoss:
    """``phi [P] -> (-mean(ratio A) - w entropy [], mean(ratio A_c) [m])``.

    The actor's own parameters are not read.

    :param advantage: ``[T]``; ``cost_advantages`` ``[m, T]``.
    :param entropy_weight: w; the entropy is in nats, its mean over the states.
    """
    like = {name: x.detach() for name, x in actor.named_parameters()}

    def loss(phi: Tensor) -> tuple[Tensor, Tensor]:
        (mean, std), _ = functional_call(actor, unflatten(phi, like), (rollout.obs,))
        ratio = (log_density(mean, std, rollout.act) - rollout.log_density).exp()
        bonus = entropy_weight * entropy(std).mean() if entropy_weight else 0.0
        return -(ratio * advantage).mean() - bonus, (ratio * cost_advantages).mean(1)

    return loss


def mean_kl(actor: Callable[[Tensor], Any], rollouts: Sequence[Rollout]) -> Tensor:
    """Mean divergence, 0-dim, of the policies that collected from the actor's as it is now."""
    parts = []
    for rollout in rollouts:
        (mean, std), _ = actor(rollout.obs)
        parts.append(kl_divergence(rollout.mean, rollout.std, mean, std))
    return torch.cat(parts).mean()


class HasStates(Protocol):
    """A rollout, for instance."""

    @property
    def obs(self) -> Tensor: ...


class MovingFisher:
    """The damped Fisher matrix of an actor's policy on given states, as a function of flat parameters.

    The actor's own parameters are not read.

    :param rollouts: with the states ``obs [T, D]``.
    :param config: ``fisher_fraction`` of the states, ``cg_damping``, ``cg_iterations``.
    """

    def __init__(self, actor: nn.Module, rollouts: Sequence[HasStates], config: TrustRegionConfig) -> None:
        every = round(1 / config.fisher_fraction)
        self.actor, self.config = actor, config
        self.obs = [rollout.obs[::every] for rollout in rollouts]
        self._like = {name: x.detach() for name, x in actor.named_parameters()}

    def inverse(self, phi: Tensor) -> InverseMetric:
        """``z [P] -> H(phi)^-1 z [P]`` by conjugate gradient."""
        with torch.enable_grad():
            phi = phi.detach().clone().requires_grad_()
            mean, std = self._gaussian(phi)
            divergence = kl_divergence(mean.detach(), std.detach(), mean, std).mean()
            fisher = FisherVectorProduct(divergence, [phi], damping=self.config.cg_damping)
        return InverseMetric(fisher, max_iterations=self.config.cg_iterations)

    def form(self, phi: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """``u . F(phi) w`` ``[]`` of the undamped matrix, to be differentiated in phi.

        The matrix is the mean over states of ``J' diag(1 / sigma^2, 2) J``, with J the Jacobian of the means
        and of the logarithms of the standard deviations.
        """
        with torch.enable_grad():
            phi = phi if phi.requires_grad else phi.detach().requires_grad_()
            mean, std = self._gaussian(phi)
            outputs = torch.cat([mean, std.log()], dim=1)
            # J u is what J' c, linear in c, has for a derivative along u: reverse mode alone, differentiable.
            c = torch.zeros_like(outputs, requires_grad=True)
            (pulled,) = torch.autograd.grad(outputs, phi, c, create_graph=True)
            (along_u,), (along_w,) = (
                torch.autograd.grad(pulled, c, v.detach(), create_graph=True) for v in (u, w)
            )
            weight = torch.cat([std.square().reciprocal(), torch.full_like(std, 2.0)], dim=1)
            return (weight * along_u * along_w).sum(-1).mean()

    def _gaussian(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        frozen = unflatten(phi, self._like)
        found = [functional_call(self.actor, frozen, (obs,))[0] for obs in self.obs]
        return torch.cat([mean for mean, _ in found]), torch.cat([std for _, std in found])


def fisher_metric(
    actor: nn.Module, rollouts: Sequence[HasStates], config: TrustRegionConfig
) -> InverseMetric:
    """Products with the inverse of the damped Fisher matrix of the actor as it is now.

    They go on being those of now when its parameters change.
    """
    return MovingFisher(actor, rollouts, config).inverse(flatten(actor.parameters()))
