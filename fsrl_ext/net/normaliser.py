"""Normalise observations by the statistics of those that were seen first.

Dimension letters: ``B`` batch, ``O`` observation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.errors import checked

# Added to the variance: an entry that varies by less than 1e-4 is not stretched to unit size.
_EPSILON = 1e-8
# The standard deviation, relative to an entry's size, that rounding to float32 can leave of a constant.
_ROUNDING = 1e-6


class ObservationNormaliser(nn.Module):
    """Subtracts the mean of the observations seen so far and divides by their standard deviation.

    Count, mean and variance are buffers, so ``state_dict`` saves them with the policy. Only :meth:`update`
    changes them.

    The scale of an entry with mean ``m`` and standard deviation ``s`` is ``sqrt(s^2 + 1e-8)``: an entry in
    units of 1e-3 is stretched to unit size, and no entry is multiplied by more than 1e4. An entry counts as
    constant where ``s <= 1e-6 max(1, |m|)``, which is what rounding leaves of a constant in float32. Nothing
    is known then about how far it moves when it moves at last, so its scale is its own size, ``max(1, |m|)``:
    a constant 0 that becomes 1 is seen as 1, not as 10,000.

    :param obs_dim: O.
    :param clip: largest absolute value of a normalised entry.
    :param horizon: number of observations after which :meth:`update` leaves the statistics unchanged.
    """

    @checked(at_least_one=("obs_dim",), positive_or_inf=("clip", "horizon"))
    def __init__(self, obs_dim: int, *, clip: float = 10.0, horizon: float = math.inf) -> None:
        super().__init__()
        self.clip = clip
        self.horizon = horizon
        self.count: Tensor
        self.mean: Tensor
        self.variance: Tensor
        # The buffers are kept beside their ids, so that no other tensor can get the id of one of them.
        self._kept: tuple[Any, tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(obs_dim, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(obs_dim, dtype=torch.float64))

    @property
    def settled(self) -> bool:
        """Tell whether the horizon is reached, so that the statistics no longer change."""
        return bool(self.count >= self.horizon)

    def forward(self, obs: np.ndarray | Tensor) -> Tensor:
        """Return normalised float32 observations ``[B, O]``.

        Before the first update, observations are only clipped.
        """
        shift, factor = self._constants()
        obs = torch.as_tensor(obs, dtype=torch.float32, device=shift.device).flatten(1)
        return (obs - shift).mul_(factor).clamp_(-self.clip, self.clip)

    def _constants(self) -> tuple[Tensor, Tensor]:
        """Return the mean and one over the scale of each entry, ``[O]`` each, in float32.

        Both are kept until a buffer is replaced or written to, because every step of a collect needs them.
        """
        buffers = (self.mean, self.variance)
        versions = tuple((id(x), x._version) for x in buffers)
        if self._kept is None or self._kept[0] != versions:
            self._kept = (versions, buffers, (self.mean.float(), self._factor().float()))
        return self._kept[2]

    def _factor(self) -> Tensor:
        """Return one over the scale of each entry, ``[O]`` in float64."""
        size = self.mean.abs().clamp(min=1.0)
        constant = self.variance.sqrt() <= _ROUNDING * size
        return torch.where(constant, size.reciprocal(), (self.variance + _EPSILON).rsqrt())

    @torch.no_grad()
    def update(self, obs: Tensor) -> None:
        """Add observations ``[B, O]`` to the statistics by the pairwise rule of Chan et al. (1979).

        A batch counts as a whole. Once :attr:`settled`, a batch changes nothing.
        """
        if self.settled:
            return
        obs = obs.double()
        new, total = len(obs), self.count + len(obs)
        mean, variance = obs.mean(0), obs.var(0, correction=0)
        difference = mean - self.mean
        squares = self.variance * self.count + variance * new
        squares = squares + difference.square() * self.count * new / total
        self.mean.add_(difference * new / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)
