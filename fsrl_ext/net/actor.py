"""Map observations to Gaussian or deterministic actions, for the off-policy algorithms.

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

from fsrl_ext.errors import checked
from fsrl_ext.net.mlp import Networks

Covariance = Literal["diagonal", "full"]

# Factor on the initial weights of an actor's last layer. An untrained actor then acts almost alike in every
# state, near the middle of the box, where tanh has a slope.
LAST_LAYER_SCALE = 0.1

INWARD_SLOPE = 0.1
"""Least slope of :func:`squash` for gradient steps that move an action towards the middle of the box."""


class GaussianActor(nn.Module):
    """Maps an observation to a Gaussian over the normalised action box ``[-1, 1]``.

    The call is ``((mean, scale), state) = actor(obs)``, as for Tianshou's actors. With diagonal covariance
    the class can be exchanged for ``tianshou.utils.net.continuous.ActorProb``.

    :param obs_dim: O.
    :param act_dim: A.
    :param hidden_sizes: widths of the hidden layers.
    :param covariance: ``"diagonal"`` gives standard deviations ``[B, A]``, ``"full"`` a lower Cholesky
        factor ``[B, A, A]``.
    :param initial_std: standard deviation of an untrained actor, in units of the normalised box.
    :param std_range: smallest and largest standard deviation; with full covariance, smallest and largest
        entry on the diagonal of the Cholesky factor.
    :param bounded: True bounds the mean by a tanh. False leaves it unbounded, for policies that squash
        samples into the box.
    :param mean_range: r > 0, largest size of a bounded mean: the mean is ``r * tanh(x / r)``. A mean beyond 1
        lets most samples be clipped to the edge of the box, so that the actor can play the edge without
        having to lower its standard deviation.
    :raises ValueError: ``covariance`` is unknown, or ``initial_std`` lies outside of ``std_range``.
    """

    @checked(
        at_least_one=("obs_dim", "act_dim", "hidden_sizes"),
        positive=("initial_std", "std_range", "mean_range"),
    )
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
        mean_range: float = 1.0,
    ) -> None:
        super().__init__()
        if covariance not in get_args(Covariance):
            raise ValueError(f"covariance must be one of {get_args(Covariance)}, got {covariance!r}")
        if not 0 < std_range[0] < initial_std < std_range[1]:
            raise ValueError(f"std_range must enclose initial_std > 0, got {std_range} and {initial_std}")
        self.act_dim = act_dim
        self.covariance = covariance
        self.bounded = bounded
        self.mean_range = mean_range
        self.log_std_range = (math.log(std_range[0]), math.log(std_range[1]))
        self.body = _body(obs_dim, hidden_sizes)
        # The last layer gives means, logarithms of standard deviations, and the entries below the diagonal.
        num_lower = act_dim * (act_dim - 1) // 2 if covariance == "full" else 0
        self.head = nn.Linear([obs_dim, *hidden_sizes][-1], 2 * act_dim + num_lower)
        self._networks = Networks([*self.body, self.head])
        if covariance == "full":
            self.lower_index: Tensor
            self.register_buffer("lower_index", torch.tril_indices(act_dim, act_dim, -1))
        with torch.no_grad():
            self.head.weight.mul_(LAST_LAYER_SCALE)
            self.head.bias.zero_()
            self.head.bias[act_dim : 2 * act_dim].fill_(math.log(initial_std))

    def forward(
        self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """Return mean ``[B, A]`` and scale of the actions for observations ``[B, O]``.

        The scale is ``[B, A]`` with diagonal covariance and ``[B, A, A]`` with full covariance.
        """
        out = _run(self._networks, self.body, self.head, obs)
        mean, log_std, lower = out.tensor_split((self.act_dim, 2 * self.act_dim), dim=1)
        std = log_std.clamp(*self.log_std_range).exp()
        if self.bounded:
            mean = bounded_mean(mean, self.mean_range)
        if self.covariance == "diagonal":
            return (mean, std), state
        scale = torch.diag_embed(std)
        rows, columns = self.lower_index
        # Each row of the factor is scaled by its standard deviation, so that the network's outputs mean
        # correlations, whatever the size of the deviations.
        scale[:, rows, columns] = lower * std[:, rows]
        return (mean, scale), state


def bounded_mean(x: Tensor, mean_range: float) -> Tensor:
    """Return ``r * tanh(x / r)`` for numbers of any shape, which is about ``x`` where ``x`` is small."""
    return torch.tanh(x) if mean_range == 1 else mean_range * torch.tanh(x / mean_range)


class DeterministicActor(nn.Module):
    """Maps an observation to an action in the normalised box ``[-1, 1]``.

    The call is ``(action, state) = actor(obs)``; the class can be exchanged for Tianshou's ``Actor``.

    :param obs_dim: O.
    :param act_dim: A.
    :param hidden_sizes: widths of the hidden layers.
    """

    @checked(at_least_one=("obs_dim", "act_dim", "hidden_sizes"))
    def __init__(self, obs_dim: int, act_dim: int, *, hidden_sizes: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.act_dim = act_dim
        self.body = _body(obs_dim, hidden_sizes)
        self.head = nn.Linear([obs_dim, *hidden_sizes][-1], act_dim)
        self._networks = Networks([*self.body, self.head])
        with torch.no_grad():
            self.head.weight.mul_(LAST_LAYER_SCALE)
            self.head.bias.zero_()

    def forward(self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """Return actions ``[B, A]`` for observations ``[B, O]``."""
        return squash(_run(self._networks, self.body, self.head, obs)), state


def squash(x: Tensor) -> Tensor:
    """Map numbers of any shape to (-1, 1) by a tanh that actions can come back from.

    At the edge of the box the slope of tanh vanishes, and a deterministic policy that has gone there before
    its multipliers have grown stays there, whatever the multipliers say. The gradient here is that of tanh,
    but its factor is at least :data:`INWARD_SLOPE` where a descent step moves the action inwards. Each action
    moves in the same direction as with tanh. (Hausknecht & Stone, arXiv 1511.04143, scale gradients by
    direction likewise.)
    """
    return _Squash.apply(x)


class _Squash(torch.autograd.Function):
    """The function of :func:`squash` and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.tanh(x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (out,), (gradient,) = ctx.saved_tensors, gradients
        slope = 1 - out * out
        return gradient * torch.where(gradient * out > 0, slope.clamp(min=INWARD_SLOPE), slope)


def _body(obs_dim: int, hidden_sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(i, o) for i, o in pairwise([obs_dim, *hidden_sizes]))


# `body` is an `nn.ModuleList` of linear layers; the annotation `Any` is there because a ModuleList has no
# element type.
def _run(networks: Networks, body: Any, head: nn.Linear, obs: np.ndarray | Tensor) -> Tensor:
    """Return the head's output for observations ``[B, O]``."""
    weight = head.weight
    hidden = torch.as_tensor(obs, dtype=weight.dtype, device=weight.device).flatten(1)
    if networks.supports(hidden):
        return networks.run(hidden)[0]
    for layer in body:
        hidden = relu(linear(hidden, layer.weight, layer.bias), inplace=True)
    return linear(hidden, weight, head.bias)
