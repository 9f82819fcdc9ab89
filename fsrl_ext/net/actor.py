"""Gaussian and deterministic actors.

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
    """Observation to a Gaussian over the normalised action box ``[-1, 1]``.

    Called as Tianshou's actors are and, for diagonal covariance, interchangeable with
    ``tianshou.utils.net.continuous.ActorProb``: ``((mean, scale), state) = actor(obs)``.

    :param obs_dim: O.
    :param act_dim: A.
    :param hidden_sizes: widths of the hidden layers.
    :param covariance: ``"diagonal"`` gives standard deviations ``[B, A]``, ``"full"`` a lower Cholesky
        factor ``[B, A, A]``.
    :param initial_std: standard deviation of an untrained actor, in units of the normalised box.
    :param std_range: smallest and largest standard deviation (of the Cholesky factor's diagonal).
    :param bounded: whether the mean lies in the box; without, it is unbounded, for policies that squash
        samples into the box.
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
        bounded: bool = True,
    ) -> None:
        super().__init__()
        if covariance not in get_args(Covariance):
            raise ValueError(f"covariance must be one of {get_args(Covariance)}, got {covariance!r}")
        if not 0 < std_range[0] < initial_std < std_range[1]:
            raise ValueError(f"std_range must enclose initial_std > 0, got {std_range} and {initial_std}")
        self.act_dim = act_dim
        self.covariance = covariance
        self.bounded = bounded
        self.log_std_range = (math.log(std_range[0]), math.log(std_range[1]))
        self.body = _body(obs_dim, hidden_sizes)
        # One last layer for means, logarithms of standard deviations, and what lies below the diagonal.
        num_lower = act_dim * (act_dim - 1) // 2 if covariance == "full" else 0
        self.head = nn.Linear([obs_dim, *hidden_sizes][-1], 2 * act_dim + num_lower)
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
        out = _run(self.body, self.head, obs)
        mean, log_std, lower = out.tensor_split((self.act_dim, 2 * self.act_dim), dim=1)
        mean, std = torch.tanh(mean) if self.bounded else mean, log_std.clamp(*self.log_std_range).exp()
        if self.covariance == "diagonal":
            return (mean, std), state
        scale = torch.diag_embed(std)
        rows, columns = self.lower_index
        # The factor's rows are scaled by the standard deviations, so correlations start at zero and
        # keep their meaning when the deviations shrink.
        scale[:, rows, columns] = lower * std[:, rows]
        return (mean, scale), state


class DeterministicActor(nn.Module):
    """Observation to an action in the normalised box ``[-1, 1]``.

    Called as Tianshou's ``Actor`` is and interchangeable with it: ``(action, state) = actor(obs)``.

    :param obs_dim: O.
    :param act_dim: A.
    :param hidden_sizes: widths of the hidden layers.
    """

    def __init__(self, obs_dim: int, act_dim: int, *, hidden_sizes: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.act_dim = act_dim
        self.body = _body(obs_dim, hidden_sizes)
        self.head = nn.Linear([obs_dim, *hidden_sizes][-1], act_dim)
        # Small last layer: an untrained actor stays where tanh has a slope.
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def forward(self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """Actions ``[B, A]`` for observations ``[B, O]``."""
        return torch.tanh(_run(self.body, self.head, obs)), state


def _body(obs_dim: int, hidden_sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(i, o) for i, o in pairwise([obs_dim, *hidden_sizes]))


# A ModuleList does not tell the type of what it holds.
def _run(body: Any, head: nn.Linear, obs: np.ndarray | Tensor) -> Tensor:
    """The head's output for observations ``[B, O]``."""
    weight = head.weight
    hidden = torch.as_tensor(obs, dtype=weight.dtype, device=weight.device).flatten(1)
    for layer in body:
        hidden = relu(linear(hidden, layer.weight, layer.bias), inplace=True)
    return linear(hidden, weight, head.bias)
