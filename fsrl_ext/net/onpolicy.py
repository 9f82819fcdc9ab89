"""Actor, state values and observation normaliser of on-policy learning.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action, ``C`` costs, ``S = 1 + C`` signals (reward
first).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.net.critic import StackedLinear


class OnpolicyActor(nn.Module):
    """Observation to a Gaussian whose standard deviation is the same in every state, over tanh layers.

    Called as Tianshou's actors are and interchangeable with ``tianshou.utils.net.continuous.ActorProb``:
    ``((mean, std), state) = actor(obs)``.

    :param obs_dim: O.
    :param act_dim: A.
    :param hidden_sizes: widths of the hidden layers.
    :param initial_std: standard deviation of an untrained actor, in units of the normalised action box.
    :param std_range: smallest and largest standard deviation.
    :param bounded: whether the mean lies in the normalised box ``[-1, 1]``.
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        initial_std: float = 0.6,
        std_range: tuple[float, float] = (1e-2, 2.0),
        bounded: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < std_range[0] < initial_std < std_range[1]:
            raise ValueError(f"std_range must enclose initial_std > 0, got {std_range} and {initial_std}")
        self.act_dim = act_dim
        self.bounded = bounded
        self.log_std_range = (math.log(std_range[0]), math.log(std_range[1]))
        self.body = nn.Sequential(
            *(layer for i, o in pairwise([obs_dim, *hidden_sizes]) for layer in (nn.Linear(i, o), nn.Tanh()))
        )
        self.head = nn.Linear([obs_dim, *hidden_sizes][-1], act_dim)
        self.log_std = nn.Parameter(torch.full((act_dim,), math.log(initial_std)))
        # Small last layer: an untrained actor acts alike in every state, near the middle of the box.
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def forward(
        self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """Mean and standard deviation ``[B, A]`` of the actions for observations ``[B, O]``."""
        weight = self.head.weight
        hidden = torch.as_tensor(obs, dtype=weight.dtype, device=weight.device).flatten(1)
        mean = self.head(self.body(hidden))
        mean = torch.tanh(mean) if self.bounded else mean
        return (mean, self.log_std.clamp(*self.log_std_range).exp().expand_as(mean)), state


class ValueCritic(nn.Module):
    """State values of the reward and of each cost, from tanh layers.

    :param obs_dim: O.
    :param num_costs: C, at least 1.
    :param hidden_sizes: widths of the hidden layers, at least one.
    :param shared_body: one network with a head for each signal; otherwise a network for each.
    """

    def __init__(
        self,
        obs_dim: int,
        *,
        num_costs: int = 1,
        hidden_sizes: Sequence[int] = (64, 64),
        shared_body: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("num_costs", num_costs), ("len(hidden_sizes)", len(hidden_sizes))):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.num_costs = num_costs
        self.shared_body = shared_body
        nets, heads = (1, 1 + num_costs) if shared_body else (1 + num_costs, 1)
        self.num_nets = nets
        # A ModuleList does not tell the type of what it holds.
        self.layers: Any = nn.ModuleList(
            StackedLinear(nets, i, o) for i, o in pairwise([obs_dim, *hidden_sizes, heads])
        )

    def forward(self, obs: Tensor) -> Tensor:
        """Values ``[B, S]`` of states ``[B, O]``."""
        hidden = obs.expand(self.num_nets, -1, -1)
        for i, layer in enumerate(self.layers):
            hidden = layer(torch.tanh(hidden) if i else hidden)
        return hidden[0] if self.shared_body else hidden.squeeze(-1).T


class ObservationNormaliser(nn.Module):
    """Shifts and scales observations by the mean and standard deviation of the first of them.

    The statistics are buffers, so they are saved with the policy; they change in :meth:`update` alone.

    :param obs_dim: O.
    :param clip: largest absolute value of a normalised entry.
    :param horizon: once so many observations have been seen, the statistics stay as they are.
    """

    def __init__(self, obs_dim: int, *, clip: float = 10.0, horizon: float = math.inf) -> None:
        super().__init__()
        self.clip = clip
        self.horizon = horizon
        self.count: Tensor
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(obs_dim, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(obs_dim, dtype=torch.float64))

    @property
    def settled(self) -> bool:
        """Whether the statistics stay as they are."""
        return bool(self.count >= self.horizon)

    def forward(self, obs: np.ndarray | Tensor) -> Tensor:
        """Normalised float32 observations ``[B, O]``; as they are before the first update."""
        found = torch.as_tensor(obs, dtype=torch.float32, device=self.mean.device).flatten(1)
        shift, scale = self.mean.float(), (self.variance + 1e-8).rsqrt().float()
        return ((found - shift) * scale).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, obs: Tensor) -> None:
        """Takes observations ``[B, O]`` into the statistics (Chan et al. 1979, pairwise), up to the horizon.

        All of a batch counts, or nothing of it.
        """
        if self.settled:
            return
        found = obs.double()
        new, total = len(found), self.count + len(found)
        mean, variance = found.mean(0), found.var(0, correction=0)
        difference = mean - self.mean
        squares = self.variance * self.count + variance * new
        squares = squares + difference.square() * self.count * new / total
        self.mean.add_(difference * new / total)
        self.variance.copy_(squares / total)
        self.count.copy_(total)
