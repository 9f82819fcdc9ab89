"""Map observations to a Gaussian and to state values, for the on-policy algorithms.

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

from fsrl_ext.errors import checked
from fsrl_ext.net import tanh
from fsrl_ext.net.actor import LAST_LAYER_SCALE
from fsrl_ext.net.critic import StackedLinear


class OnpolicyActor(nn.Module):
    """Maps an observation to a Gaussian by tanh layers; its standard deviation is the same in every state.

    The call is ``((mean, std), state) = actor(obs)``; the class can be exchanged for
    ``tianshou.utils.net.continuous.ActorProb``.

    :param obs_dim: O.
    :param act_dim: A.
    :param hidden_sizes: widths of the hidden layers.
    :param initial_std: standard deviation of an untrained actor, in units of the normalised action box.
    :param std_range: smallest and largest standard deviation.
    :param bounded: True puts the mean into the normalised box ``[-1, 1]`` by a tanh.
    :raises ValueError: ``initial_std`` lies outside of ``std_range``.
    """

    @checked(at_least_one=("obs_dim", "act_dim", "hidden_sizes"), positive=("initial_std", "std_range"))
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
        with torch.no_grad():
            self.head.weight.mul_(LAST_LAYER_SCALE)
            self.head.bias.zero_()

    def forward(
        self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None
    ) -> tuple[tuple[Tensor, Tensor], Any]:
        """Return mean and standard deviation ``[B, A]`` of the actions for observations ``[B, O]``."""
        weight = self.head.weight
        hidden = torch.as_tensor(obs, dtype=weight.dtype, device=weight.device).flatten(1)
        mean = self.head(self.body(hidden))
        mean = torch.tanh(mean) if self.bounded else mean
        return (mean, self.log_std.clamp(*self.log_std_range).exp().expand_as(mean)), state


class ValueCritic(nn.Module):
    """Estimates the state values of the reward and of each cost by tanh layers.

    :param obs_dim: O.
    :param num_costs: C, at least 1.
    :param hidden_sizes: widths of the hidden layers, at least one.
    :param shared_body: True builds one network with a head for each signal, False a network for each signal.
    :raises ValueError: ``num_costs`` or the number of hidden layers is below 1.
    """

    @checked(at_least_one=("obs_dim", "num_costs", "hidden_sizes"))
    def __init__(
        self,
        obs_dim: int,
        *,
        num_costs: int = 1,
        hidden_sizes: Sequence[int] = (64, 64),
        shared_body: bool = False,
    ) -> None:
        super().__init__()
        if not len(hidden_sizes):
            raise ValueError("len(hidden_sizes) must be >= 1, got 0")
        self.num_costs = num_costs
        self.shared_body = shared_body
        nets, heads = (1, 1 + num_costs) if shared_body else (1 + num_costs, 1)
        self.num_nets = nets
        # The annotation is `Any` because a ModuleList has no element type.
        self.layers: Any = nn.ModuleList(
            StackedLinear(nets, i, o) for i, o in pairwise([obs_dim, *hidden_sizes, heads])
        )

    def forward(self, obs: Tensor) -> Tensor:
        """Return values ``[B, S]`` of states ``[B, O]``."""
        if not torch.is_grad_enabled() and tanh.runs(self.network(0), obs):
            return torch.cat([tanh.outputs(self.network(net), obs) for net in range(self.num_nets)], 1)
        hidden = obs.expand(self.num_nets, -1, -1)
        for i, layer in enumerate(self.layers):
            hidden = layer(torch.tanh(hidden) if i else hidden)
        return hidden[0] if self.shared_body else hidden.squeeze(-1).T

    def network(self, net: int) -> list[Tensor]:
        """Return the parameters of one network in the order of ``parameters()``, as views without a graph.

        :param net: number of the network, below ``num_nets``.
        """
        return [x.detach()[net] for x in self.parameters()]

    def loss_and_gradients(self, net: int, obs: Tensor, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the squared error of one network's values, and its gradients in the network's parameters.

        Several networks may be asked at the same time, from different threads.

        :param net: number of the network, below ``num_nets``.
        :param obs: ``[B, O]``.
        :param targets: ``[B, S]``; a network without a shared body reads its own column.
        :return: the sum over the network's signals of the mean over states, 0-dim, and the gradients of
            :meth:`network`.
        """
        own = self.network(net)
        wanted = targets if self.shared_body else targets[:, net, None]
        if tanh.runs(own, obs):
            return tanh.loss_and_gradients(own, obs, wanted)
        for x in own:
            x.requires_grad_()
        with torch.enable_grad():
            hidden = obs
            for i, (weight, bias) in enumerate(zip(own[::2], own[1::2], strict=True)):
                hidden = torch.addmm(bias, torch.tanh(hidden) if i else hidden, weight)
            loss = (hidden - wanted).square().mean(0).sum()
        return loss.detach(), list(torch.autograd.grad(loss, own))
