"""Gaussian actors.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

Covariance = Literal["diagonal", "full"]


class GaussianActor(nn.Module):
    """Observation to a Gaussian whose mean lies in the normalised action box ``[-1, 1]``.

    Called as Tianshou's actors are and, for diagonal covariance, interchangeable with
    ``tianshou.utils.net.continuous.ActorProb``: ``((mean, scale), state) = actor(obs)``.

    :param obs_dim: O.
    :param act_dim: A.
    :param hidden_sizes: widths of the hidden layers.
    :param covariance: ``"diagonal"`` gives standard deviations ``[B, A]``, ``"full"`` a lower Cholesky
        factor ``[B, A, A]``.
    :param initial_std: standard deviation of an untrained actor, in units of the normalised box.
    :param std_range: smallest and largest standard deviation (of the Cholesky factor's diagonal).
    """

    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        *,
        hidden_sizes: Sequence[int] = (128, 128),
        covariance: Covariance = "diagonal",
        initial_std: float = 0.6,
        std_range: tuple[float, float] = (1e-3, 2.0),
    ) -> None:
        super().__init__()
        if covariance not in get_args(Covariance):
            raise ValueError(f"covariance must be one of {get_args(Covariance)}, got {covariance!r}")
        if not 0 < std_range[0] < initial_std < std_range[1]:
            raise ValueError(f"std_range must enclose initial_std > 0, got {std_range} and {initial_std}")
        self.act_dim = act_dim
        self.covariance = covariance
        self.log_std_range = (math.log(std_range[0]), math.log(std_range[1]))
        sizes = [obs_dim, *hidden_sizes]
        # A ModuleList does not tell the type of what it holds.
        self.body: Any = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        # One last layer for means, logarithms of standard deviations, and what lies below the diagonal.
        num_lower = act_dim * (act_dim - 1) // 2 if covariance == "full" else 0
        self.head = nn.Linear(sizes[-1], 2 * act_dim + num_lower)
        if covariance == "full":
            self.lower_index: Tensor
            self.register_buffer("lower_index", torch.tril_indices(act_dim, act_dim, -1))
        # Small last layer: an untrained actor acts alike in every state, near the middle of the box.
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.head.bias[act_dim : 2 * act_dim].fill_(math.log(initial_std))

    def forward(
        self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """Mean ``[B, A]`` and scale of the actions for observations ``[B, O]``."""
        weight = self.head.weight
        hidden = torch.as_tensor(obs, dtype=weight.dtype, device=weight.device).flatten(1)
        for layer in self.body:
            hidden = relu(linear(hidden, layer.weight, layer.bias), inplace=True)
        out = linear(hidden, weight, self.head.bias)
        mean, log_std, lower = out.tensor_split((self.act_dim, 2 * self.act_dim), dim=1)
        mean, std = torch.tanh(mean), log_std.clamp(*self.log_std_range).exp()
        if self.covariance == "diagonal":
            return (mean, std), state
        scale = torch.diag_embed(std)
        rows, columns = self.lower_index
        # The factor's rows are scaled by the standard deviations, so correlations start at zero and
        # keep their meaning when the deviations shrink.
        scale[:, rows, columns] = lower * std[:, rows]
        return (mean, scale), state
