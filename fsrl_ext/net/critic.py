"""Estimate action values of the reward and of each cost by an ensemble of networks.

Dimension letters: ``B`` batch, ``N`` actions per state, ``O`` observation, ``A`` action, ``C`` costs,
``E`` members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fsrl_ext.errors import checked
from fsrl_ext.net.mlp import Layer, Networks, product
from fsrl_ext.net.values import QValues


class SignalNetworks(nn.Module):
    """Networks of one shape for the reward and each cost, evaluated side by side.

    :param in_dim: I.
    :param values: number of values of each signal that a network computes.
    :param num_costs: C.
    :param hidden_sizes: widths of the hidden layers, at least one.
    :param reward_ensemble: E for the reward.
    :param cost_ensemble: E for each cost.
    :param shared_body: whether each network has one body and outputs for all signals.
    :raises ValueError: there is no hidden layer, or ``shared_body`` meets two different ensemble sizes.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        num_costs: int,
        hidden_sizes: Sequence[int],
        reward_ensemble: int,
        cost_ensemble: int,
        shared_body: bool,
        values: int = 1,
    ) -> None:
        super().__init__()
        check_layout(hidden_sizes, reward_ensemble, cost_ensemble, shared_body=shared_body)
        self.num_costs = num_costs
        self.reward_ensemble = reward_ensemble
        self.cost_ensemble = cost_ensemble
        self.shared_body = shared_body
        self.num_nets = reward_ensemble if shared_body else reward_ensemble + num_costs * cost_ensemble
        self.num_heads = 1 + num_costs if shared_body else 1
        sizes = [in_dim, *hidden_sizes, self.num_heads * values]
        # The annotation is `Any` because a ModuleList has no element type.
        self.layers: Any = nn.ModuleList(StackedLinear(self.num_nets, i, o) for i, o in pairwise(sizes))
        self._networks = Networks(self.layers)

    def _outputs(self, inputs: Tensor) -> Tensor:
        """Return the outputs of all networks ``[nets, B, heads * values]`` for inputs ``[B, I]``."""
        return self._networks.run(inputs) if self._networks.supports(inputs) else self._stacked(inputs)

    def _stacked(self, inputs: Tensor) -> Tensor:
        """Return the same by one batched product of all networks in each layer."""
        hidden = inputs.expand(self.num_nets, -1, -1)
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden.relu_() if i else hidden)
        return hidden

    def _by_signal(self, values: Tensor, *, heads: int) -> QValues:
        """Return the values of reward and costs, from values ``[nets, B, ...]`` whose axis ``heads`` goes."""
        if self.shared_body:
            signals = values.movedim(heads, 0)
            return QValues(signals[0], signals[1:])
        values = values.squeeze(heads)
        cost = values[self.reward_ensemble :].unflatten(0, (self.num_costs, self.cost_ensemble))
        return QValues(values[: self.reward_ensemble], cost)


class EnsembleCritic(SignalNetworks):
    """Estimates Q-values of the reward and of each cost by an ensemble of networks.

    With ``shared_body=False`` every signal has its own networks, ``reward_ensemble + num_costs *
    cost_ensemble`` in all. With ``shared_body=True`` each network has one body and a head per signal, and the
    two ensemble sizes must agree.

    The parameters of all networks are stacked. On an accelerator, all networks run in one batched product
    with one action per state. In all other cases they run one after the other, with the products of
    :mod:`fsrl_ext.net.mlp` and activations that stay in the processor's cache.
    ``benchmarks/critic_layout.py`` measures both layouts.

    :param obs_dim: O.
    :param act_dim: A.
    :param num_costs: C, at least 1.
    :param hidden_sizes: widths of the hidden layers, at least one.
    :param reward_ensemble: E for the reward.
    :param cost_ensemble: E for each cost.
    :param shared_body: see above.
    :raises ValueError: a number is below 1, or ``shared_body`` meets two different ensemble sizes.
    """

    @checked(
        at_least_one=("obs_dim", "act_dim", "num_costs", "hidden_sizes", "reward_ensemble", "cost_ensemble")
    )
    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        *,
        num_costs: int = 1,
        hidden_sizes: Sequence[int] = (128, 128),
        reward_ensemble: int = 2,
        cost_ensemble: int = 2,
        shared_body: bool = False,
    ) -> None:
        super().__init__(
            obs_dim + act_dim,
            num_costs=num_costs,
            hidden_sizes=hidden_sizes,
            reward_ensemble=reward_ensemble,
            cost_ensemble=cost_ensemble,
            shared_body=shared_body,
        )
        self.obs_dim = obs_dim

    def forward(self, obs: Tensor, act: Tensor, hidden_dtype: torch.dtype | None = None) -> QValues:
        """Return Q-values for observations ``[B, O]`` and actions ``[B, A]`` or ``[B, N, A]``.

        The caller clips actions to ``[-1, 1]``, as the environment executes them.

        :param hidden_dtype: type of the products between hidden layers with N actions and without gradients,
            for example ``torch.bfloat16``; None keeps the parameters' type. The first and the last layer
            always keep it.
        """
        if act.dim() == 2:
            out = self._one_action(obs, act)
        elif torch.is_grad_enabled():
            repeated = obs.repeat_interleave(act.shape[1], 0)
            out = self._one_action(repeated, act.flatten(0, 1)).unflatten(1, act.shape[:2])
        else:
            out = self._many_actions(obs, act, hidden_dtype)
        return self._by_signal(out, heads=-1)

    def _one_action(self, obs: Tensor, act: Tensor) -> Tensor:
        """Return values ``[nets, B, heads]``."""
        return self._outputs(torch.cat([obs, act], 1))

    def _many_actions(self, obs: Tensor, act: Tensor, hidden_dtype: torch.dtype | None) -> Tensor:
        """Return values ``[nets, B, N, heads]`` without a graph, from one network after the other.

        The observation's share of the first layer is computed once per state, not once per action.
        """
        values = []
        for first, *middle, last in self._networks.views()[1]:
            base = torch.addmm(first.bias, obs, first.weight[: self.obs_dim]).unsqueeze(1)
            per_state = first.weight[self.obs_dim :].expand(len(act), -1, -1)
            hidden = torch.baddbmm(base, act, per_state).flatten(0, 1).relu_()
            for layer in middle:
                if hidden_dtype is not None:
                    hidden, layer = hidden.to(hidden_dtype), Layer(*(x.to(hidden_dtype) for x in layer))
                hidden = product(hidden, layer, relu=True)
            values.append(torch.addmm(last.bias, hidden.to(last.weight.dtype), last.weight))
        return torch.stack(values).unflatten(1, act.shape[:2])


def check_layout(
    hidden_sizes: Sequence[int], reward_ensemble: int, cost_ensemble: int, *, shared_body: bool
) -> None:
    """Check the layers and the ensembles of a critic.

    :raises ValueError: there is no hidden layer, or ``shared_body`` meets two different ensemble sizes.
    """
    if not len(hidden_sizes):
        raise ValueError("len(hidden_sizes) must be >= 1, got 0")
    if shared_body and reward_ensemble != cost_ensemble:
        raise ValueError(
            "shared_body needs equal ensembles, got "
            f"reward_ensemble={reward_ensemble} and cost_ensemble={cost_ensemble}"
        )


class StackedLinear(nn.Module):
    """Applies one linear layer of each of several networks, ``[nets, B, in]`` to ``[nets, B, out]``.

    The initial parameters are distributed as those of ``torch.nn.Linear``.
    """

    def __init__(self, num_nets: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(num_nets, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_nets, 1, out_features).uniform_(-bound, bound))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)

    def members(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight ``[in, out]`` and bias ``[out]`` of each network."""
        return list(zip(self.weight.unbind(), self.bias.squeeze(1).unbind(), strict=True))
