"""The distributions that policies draw actions from: a diagonal Gaussian, or a categorical one.

An algorithm that computes with these two classes alone works with continuous and with discrete actions.

Dimension letters: ``B`` batch, ``A`` numbers of an action, or number of discrete actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsrl_ext.errors import check_finite
from fsrl_ext.functional import gaussian


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Holds a Gaussian with independent entries for each state of a batch; actions are ``[B, A]``.

    :param mean: ``[B, A]``.
    :param std: standard deviations ``[B, A]``.
    """

    mean: Tensor
    std: Tensor

    def __getitem__(self, rows: Any) -> Gaussian:
        return Gaussian(self.mean[rows], self.std[rows])

    def sample(self) -> Tensor:
        """Draw one action for each state, ``[B, A]``."""
        return self.mean + self.std * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """Return the most probable actions ``[B, A]``, the means."""
        return self.mean

    def log_density(self, act: Tensor) -> Tensor:
        """Return the log density ``[B]`` of actions ``[B, A]``."""
        return gaussian.log_density(self.mean, self.std, act)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, ``[B]``."""
        return gaussian.entropy(self.std)

    def kl(self, other: Gaussian) -> Tensor:
        r"""Return the divergence :math:`KL(self \| other)` in nats, ``[B]``."""
        return gaussian.kl_divergence(self.mean, self.std, other.mean, other.std)

    def detach(self) -> Gaussian:
        """Return the same Gaussians without their graph."""
        return Gaussian(self.mean.detach(), self.std.detach())

    def metrics(self) -> dict[str, float]:
        """Return the mean standard deviation in the first state, to log."""
        return {"policy/std": float(self.std[0].mean())}


@dataclass(frozen=True, eq=False)
class Categorical:
    """Holds a distribution over ``A`` discrete actions for each state of a batch; actions are ``[B]``.

    :param log_probs: logarithms of the probabilities ``[B, A]``; each row's probabilities sum to one.
    """

    log_probs: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> Categorical:
        """Make the distribution with probabilities in proportion to ``exp(logits)``, ``[B, A]``."""
        return cls(logits.log_softmax(-1))

    @property
    def probs(self) -> Tensor:
        """The probabilities ``[B, A]``."""
        return self.log_probs.exp()

    def __getitem__(self, rows: Any) -> Categorical:
        return Categorical(self.log_probs[rows])

    def sample(self) -> Tensor:
        """Draw one action for each state, ``[B]`` int64.

        :raises NonFiniteError: a probability is NaN.
        """
        check_finite(self.log_probs.sum(), "the sum of the actor's log probabilities")
        return torch.multinomial(self.probs, 1).squeeze(-1)

    def mode(self) -> Tensor:
        """Return the most probable actions, ``[B]`` int64; the first one among equals.

        :raises NonFiniteError: a probability is NaN.
        """
        check_finite(self.log_probs.sum(), "the sum of the actor's log probabilities")
        return self.log_probs.argmax(-1)

    def log_density(self, act: Tensor) -> Tensor:
        """Return the log probability ``[B]`` of actions ``[B]``, numbers from 0 to A - 1."""
        return self.log_probs.gather(-1, act.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, ``[B]``."""
        return -(self.probs * self.log_probs).sum(-1)

    def kl(self, other: Categorical) -> Tensor:
        r"""Return the divergence :math:`KL(self \| other) = \sum_a p_a (\log p_a - \log q_a)`, ``[B]``."""
        return (self.probs * (self.log_probs - other.log_probs)).sum(-1)

    def detach(self) -> Categorical:
        """Return the same distributions without their graph."""
        return Categorical(self.log_probs.detach())

    def metrics(self) -> dict[str, float]:
        """Return the mean entropy, to log."""
        return {"policy/entropy": float(self.entropy().mean())}


Distribution = Gaussian | Categorical


def distribution(output: Any) -> Any:
    """Return the distribution that an actor's output stands for.

    :param output: mean ``[B, A]`` and standard deviations ``[B, A]``, or logits ``[B, A]`` alone.
    :return: a :class:`Gaussian` or a :class:`Categorical`. The annotation is ``Any`` because an algorithm
        compares only distributions of one actor, which are of one class.
    """
    return Categorical.of(output) if isinstance(output, Tensor) else Gaussian(*output)


def joined(parts: Sequence[Any]) -> Any:
    """Return the distributions of several batches as those of one batch."""
    if isinstance(parts[0], Categorical):
        return Categorical(torch.cat([x.log_probs for x in parts]))
    return Gaussian(torch.cat([x.mean for x in parts]), torch.cat([x.std for x in parts]))
