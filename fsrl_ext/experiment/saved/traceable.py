"""Turn a saved policy into one module of plain layers, from raw observations to environment actions.

Dimension letters: ``B`` batch, ``O`` observation, ``A`` action, ``N`` agents; ``Oi`` and ``Ai`` are numbers
of one agent, ``O1`` the largest number that an agent observes.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch
from tianshou.policy import BasePolicy
from torch import Tensor, nn

from fsrl_ext.net import AgentActors, DeterministicActor, FeatureActor, GaussianActor, OnpolicyActor
from fsrl_ext.net.actor import bounded_mean


class TraceablePolicy(nn.Module):
    """Maps observations ``[B, O]`` to the actions ``[B, A]`` that an evaluation sends to the environment.

    Discrete actions are ``[B]``. Of a policy that samples discrete actions in evaluations, the module returns
    the probabilities ``[B, n]`` of the n actions.

    The module calls the policy itself, so normaliser, average actor and squashing are the policy's own. Its
    actors are replaced by plain layers, because a trace cannot follow those that choose a fast product by
    the batch's size.

    :param policy: a policy in evaluation mode, on a processor; the module works on a copy of it.
    :raises ValueError: the policy's actions are neither a box of floating-point numbers nor discrete.
    """

    def __init__(self, policy: BasePolicy) -> None:
        super().__init__()
        space = policy.action_space
        is_box = isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)
        if not is_box and not isinstance(space, gym.spaces.Discrete):
            raise ValueError(f"action_space must be a Box of floating-point numbers or Discrete, got {space}")
        acting = copy.deepcopy(policy).requires_grad_(False).eval()
        for name, child in acting.named_children():
            plain = plain_actor(child)
            if plain is not None:
                setattr(acting, name, plain.requires_grad_(False).eval())
        # A submodule would bring critics and copies of networks into the file.
        self.__dict__["policy"] = acting
        self.first = int(space.start) if isinstance(space, gym.spaces.Discrete) else None
        if not isinstance(space, gym.spaces.Box):
            return
        # float16 is too coarse for the arithmetic in between, as in ConstrainedPolicy.map_action.
        precision: Any = np.result_type(space.dtype, np.float32)
        self.low, self.high = (torch.as_tensor(x.astype(precision)) for x in (space.low, space.high))
        self.dtype = torch.as_tensor(space.low).dtype

    def forward(self, obs: Tensor) -> Tensor:
        """Return actions ``[B, A]`` in the action space, in its dtype, for observations ``[B, O]``."""
        policy: Any = self.policy
        if gives_probabilities(policy):
            return policy.acting_distribution(obs)[0].probs
        act = policy(Batch(obs=obs, info=Batch())).act
        if self.first is not None:
            return act + self.first
        act = act.to(self.low.dtype)
        if policy.action_bound_method == "tanh":
            act = act.tanh()
        elif policy.action_bound_method == "clip":
            act = act.clamp(-1.0, 1.0)
        if policy.action_scaling:
            act = self.low + (self.high - self.low) * (act + 1.0) / 2.0
        return torch.minimum(torch.maximum(act, self.low), self.high).to(self.dtype)


def gives_probabilities(policy: Any) -> bool:
    """Say whether a policy's file gives the probabilities of discrete actions, which evaluations sample."""
    return (
        isinstance(policy.action_space, gym.spaces.Discrete)
        and getattr(policy, "samples_in_evaluations", False)
        and hasattr(policy, "acting_distribution")
    )


def plain_actor(actor: nn.Module) -> nn.Module | None:
    """Return a module of plain layers that acts as ``actor`` does, without exploration.

    The call is that of the actor; where the actor returns a scale, the module returns ``None`` in its place.

    :return: ``None`` for what is not an actor of :mod:`fsrl_ext.net`; a subclass may compute something else.
    :raises ValueError: several agents act by networks of the user's.
    """
    if type(actor) is AgentActors:
        if any(type(one) is FeatureActor for one in actor.actors):
            raise ValueError("an actor of your own can be written for one agent, and not for several")
        if not all(_is_known(one) for one in actor.actors):
            return None
        networks = [_agent_network(actor, i) for i in range(len(actor.obs_dims))]
        return _PlainActor(networks, actor.obs_dims, deterministic=_is_deterministic(actor.actors[0]))
    if type(actor) is FeatureActor:
        plain = plain_actor(actor.actor)
        return None if plain is None else FeatureActor(actor.features, plain)
    if not _is_known(actor):
        return None
    network = _network(actor)
    return _PlainActor([network], [network[0].in_features], deterministic=_is_deterministic(actor))


class _PlainActor(nn.Module):
    """Runs one network for each agent on the agent's own numbers, or one network on all of them."""

    def __init__(self, networks: list[nn.Sequential], obs_dims: Any, *, deterministic: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.ends = list(itertools.accumulate(obs_dims, initial=0))
        self.deterministic = deterministic

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Any, Any]:
        """Return actions or means ``[B, A]`` for observations ``[B, O]`` or longer."""
        seen = torch.as_tensor(obs, dtype=torch.float32).flatten(1)
        parts = [
            network(seen[:, first:end])
            for network, (first, end) in zip(self.networks, itertools.pairwise(self.ends), strict=True)
        ]
        act = torch.cat(parts, 1)
        return (act if self.deterministic else (act, None)), state


def _is_known(actor: nn.Module) -> bool:
    return type(actor) in (GaussianActor, DeterministicActor, OnpolicyActor)


def _is_deterministic(actor: nn.Module) -> bool:
    return type(actor) is DeterministicActor


def _agent_network(team: AgentActors, i: int) -> nn.Sequential:
    """Return the network of agent ``i``, from observations ``[B, Oi]`` to actions ``[B, Ai]``.

    A shared actor sees the agent's number as a one-hot vector after ``O1`` observations. For one agent that
    vector is constant, so its column of the weight is added to the bias.
    """
    if not team.shared:
        return _network(team.actors[i])
    network = _network(team.actors[0], act_dim=team.act_dims[i])
    # The annotation is `Any` because a Sequential has no element type.
    first: Any = network[0]
    size = team.obs_dims[i]
    number = max(team.obs_dims) + i
    network[0] = _linear(first.weight[:, :size], first.bias + first.weight[:, number])
    return network


def _network(actor: Any, act_dim: int | None = None) -> nn.Sequential:
    """Return an actor's layers up to its action or mean, and the tanh that bounds it if there is one.

    :param act_dim: the first so many actions; all if not given.
    """
    head = slice(0, actor.act_dim if act_dim is None else act_dim)
    layers: list[nn.Module] = []
    for layer in actor.body:
        if isinstance(layer, nn.Linear):
            activation = nn.Tanh() if type(actor) is OnpolicyActor else nn.ReLU()
            layers += [_linear(layer.weight, layer.bias), activation]
    layers.append(_linear(actor.head.weight[head], actor.head.bias[head]))
    if _is_deterministic(actor) or actor.bounded:
        layers.append(_BoundedMean(getattr(actor, "mean_range", 1.0)))
    return nn.Sequential(*layers)


class _BoundedMean(nn.Module):
    """Bounds an actor's mean as :class:`~fsrl_ext.net.GaussianActor` does; a range of 1 is a tanh."""

    def __init__(self, mean_range: float) -> None:
        super().__init__()
        self.mean_range = mean_range

    def forward(self, x: Tensor) -> Tensor:
        """Return means for numbers of any shape."""
        return bounded_mean(x, self.mean_range)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a layer with copies of a weight ``[J, I]`` and a bias ``[J]``."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = (nn.Parameter(x.detach().clone()) for x in (weight, bias))
    return layer
