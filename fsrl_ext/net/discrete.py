"""Networks for discrete actions: an actor with a logit, and a critic with a value, for each action.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` number of actions, ``C`` costs, ``E`` members of an
ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.errors import checked
from fsrl_ext.net.actor import LAST_LAYER_SCALE
from fsrl_ext.net.critic import SignalNetworks
from fsrl_ext.net.values import QValues

Activation = Literal["tanh", "relu"]


class CategoricalActor(nn.Module):
    """Maps an observation to logits of discrete actions.

    The call is ``(logits, state) = actor(obs)``; the class can be exchanged for
    ``tianshou.utils.net.discrete.Actor`` with ``softmax_output=False``. An untrained actor takes all actions
    with nearly the same probability.

    :param obs_dim: O.
    :param num_actions: A.
    :param hidden_sizes: widths of the hidden layers.
    :param activation: of the hidden layers, ``"tanh"`` or ``"relu"``.
    :raises ValueError: a number is below 1, or ``activation`` is unknown.
    """

    @checked(at_least_one=("obs_dim", "num_actions", "hidden_sizes"), own=("activation",))
    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise ValueError(f"activation must be one of {get_args(Activation)}, got {activation!r}")
        kind = nn.Tanh if activation == "tanh" else nn.ReLU
        self.num_actions = num_actions
        self.body = nn.Sequential(
            *(layer for i, o in pairwise([obs_dim, *hidden_sizes]) for layer in (nn.Linear(i, o), kind()))
        )
        self.head = nn.Linear([obs_dim, *hidden_sizes][-1], num_actions)
        with torch.no_grad():
            self.head.weight.mul_(LAST_LAYER_SCALE)
            self.head.bias.zero_()

    def forward(self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """Return logits ``[B, A]`` for observations ``[B, O]``."""
        weight = self.head.weight
        hidden = torch.as_tensor(obs, dtype=weight.dtype, device=weight.device).flatten(1)
        return self.head(self.body(hidden)), state


class DiscreteCritic(SignalNetworks):
    """Estimates the Q-values of all discrete actions in one pass, of the reward and of each cost.

    The networks are those of :class:`~fsrl_ext.net.EnsembleCritic`, but see observations alone and have an
    output for each action. All A values therefore cost one pass, where a critic of a given action takes A.

    :param obs_dim: O.
    :param num_actions: A.
    :param num_costs: C, at least 1.
    :param hidden_sizes: widths of the hidden layers, at least one.
    :param reward_ensemble: E for the reward.
    :param cost_ensemble: E for each cost.
    :param shared_body: whether each network has one body and A outputs per signal, as for ``EnsembleCritic``.
    :raises ValueError: a number is below 1, or ``shared_body`` meets two different ensemble sizes.
    """

    @checked(
        at_least_one=(
            "obs_dim",
            "num_actions",
            "num_costs",
            "hidden_sizes",
            "reward_ensemble",
            "cost_ensemble",
        )
    )
    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        *,
        num_costs: int = 1,
        hidden_sizes: Sequence[int] = (128, 128),
        reward_ensemble: int = 2,
        cost_ensemble: int = 2,
        shared_body: bool = False,
    ) -> None:
        super().__init__(
            obs_dim,
            values=num_actions,
            num_costs=num_costs,
            hidden_sizes=hidden_sizes,
            reward_ensemble=reward_ensemble,
            cost_ensemble=cost_ensemble,
            shared_body=shared_body,
        )
        self.num_actions = num_actions

    def forward(self, obs: Tensor, act: Tensor | None = None) -> QValues:
        """Return the Q-values of observations ``[B, O]``.

        :param act: ``[B]`` numbers of actions; ``None`` for all actions.
        :return: ``reward [E, B]`` and ``cost [C, E, B]``, or with all actions ``[E, B, A]`` and
            ``[C, E, B, A]``.
        """
        values = self._outputs(obs).unflatten(-1, (self.num_heads, self.num_actions))
        if act is not None:
            places = act.long().view(1, -1, 1, 1).expand(*values.shape[:3], 1)
            values = values.gather(-1, places).squeeze(-1)
        return self._by_signal(values, heads=2)
