"""Act and estimate values on features that a network of the user's computes.

A network of the user's maps numbers to features, and layers of this package map the features to what an
algorithm needs: a Gaussian, an action, or values. One such network therefore serves every algorithm.

Dimension letters: ``B`` batch, ``N`` actions per state, ``I`` inputs, ``F`` features, ``O`` observation,
``A`` action, ``C`` costs, ``S = 1 + C`` signals (reward first).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.errors import checked, shown
from fsrl_ext.net.values import QValues

MakeNetwork = Callable[[int], nn.Module]
"""Returns a fresh network for a number of inputs I."""


class Features(nn.Module):
    """Computes features ``[B, F]`` of inputs ``[B, I]`` by a network of the user's.

    :class:`~fsrl_ext.net.ImageFeatures` does so for images.

    The network is called with float32 inputs and nothing else. It returns the features or, as Tianshou's
    ``Net`` does, a pair that begins with them. It is tried once, which tells F.

    :param network: the network, on a processor.
    :param in_dim: I, or the shape of one row of inputs.
    :param name: what messages call the network.
    :raises ValueError: the network is no module, does not take ``[B, I]``, or does not return ``[B, F]``.
    """

    takes_images: ClassVar[bool] = False
    """Whether the inputs are images."""

    @checked(at_least_one=("in_dim",), own=("network",))
    def __init__(self, network: nn.Module, in_dim: int | Sequence[int], *, name: str = "network") -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ValueError(f"{name} must be a torch.nn.Module, got {shown(network)}")
        self.network = network
        self.like: Tensor
        self.register_buffer("like", torch.zeros(0), persistent=False)
        self.width = self._tried((in_dim,) if isinstance(in_dim, int) else tuple(in_dim), name)

    def forward(self, inputs: np.ndarray | Tensor) -> Tensor:
        """Return features ``[B, F]`` of inputs ``[B, I]``."""
        return self._features(
            torch.as_tensor(inputs, dtype=self.like.dtype, device=self.like.device).flatten(1)
        )

    def _features(self, inputs: Tensor) -> Tensor:
        """Return what the network makes of its own inputs."""
        out = self.network(inputs)
        return out[0] if isinstance(out, tuple) else out

    @torch.no_grad()
    def _tried(self, in_shape: tuple[int, ...], name: str) -> int:
        """Return F, after a call that changes neither the network nor any random number."""
        rows, training = 2, self.network.training
        self.network.eval()
        try:
            out = self._features(torch.zeros(rows, *in_shape))
        except Exception as error:  # of any kind: the network is the user's
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} must take float32 inputs {[rows, *in_shape]}, got {type(error).__name__}: {reason}"
            ) from error
        self.network.train(training)
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != rows or not out.shape[1]:
            raise ValueError(
                f"{name} must return features [{rows}, F] for {rows} rows of inputs, got {shown(out)}"
            )
        return out.shape[1]


class FeatureActor(nn.Module):
    """Lets an actor of this package act on features in place of observations.

    The call is that of the actor.

    :param features: computes features ``[B, F]`` of observations ``[B, O]``, or of images.
    :param actor: takes ``[B, F]``, such as ``GaussianActor(features.width, A, hidden_sizes=())``.
    """

    def __init__(self, features: Features, actor: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.actor = actor

    @property
    def sees_images(self) -> bool:
        """Whether observations are images, which no policy normalises."""
        return self.features.takes_images

    def forward(self, obs: np.ndarray | Tensor, state: Any = None, info: Any = None) -> tuple[Any, Any]:
        """Return what the actor returns for the features of observations ``[B, O]``, or of images."""
        return self.actor(self.features(obs), state=state)


class SharedFeatureCritic(nn.Module):
    """Lets a critic of this package value features in place of observations.

    All networks of the critic see the same features, which are computed once for all of them and for all
    actions of a state. The call is that of the critic.

    :param features: computes features ``[B, F]`` of observations ``[B, O]``, or of images.
    :param critic: takes ``[B, F]``, such as ``EnsembleCritic(features.width, A)``,
        ``DiscreteCritic(features.width, A)`` or ``ValueCritic(features.width)``.
    """

    # `critic` is a module with the number of its costs; the annotation `Any` is there because a module's
    # attributes may be of any type.
    def __init__(self, features: Features, critic: Any) -> None:
        super().__init__()
        self.num_costs: int = critic.num_costs
        self.features = features
        self.critic = critic

    def forward(self, obs: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the critic returns for the features of ``obs`` and the other arguments."""
        return self.critic(self.features(obs), *args, **kwargs)


class FeatureCritic(nn.Module):
    """Estimates Q-values of the reward and of each cost by networks of the user's, one for each member.

    The call is that of :class:`~fsrl_ext.net.EnsembleCritic`, which the class can replace. Each network sees
    observation and action, ``I = O + A``, and a linear layer makes a value of its features.

    :param obs_dim: O.
    :param act_dim: A.
    :param make_network: called once for each of ``reward_ensemble + num_costs * cost_ensemble`` networks.
    :param num_costs: C.
    :param reward_ensemble: number of networks for the reward.
    :param cost_ensemble: number of networks for each cost.
    :raises ValueError: ``make_network`` returns the same network twice, or none that computes features.
    """

    @checked(at_least_one=("obs_dim", "act_dim", "num_costs", "reward_ensemble", "cost_ensemble"))
    def __init__(
        self,
        obs_dim: int,
        act_dim: int,
        make_network: MakeNetwork,
        *,
        num_costs: int = 1,
        reward_ensemble: int = 2,
        cost_ensemble: int = 2,
    ) -> None:
        super().__init__()
        self.num_costs = num_costs
        self.reward_ensemble = reward_ensemble
        self.cost_ensemble = cost_ensemble
        self.networks = _value_networks(
            make_network, obs_dim + act_dim, reward_ensemble + num_costs * cost_ensemble
        )

    def forward(self, obs: Tensor, act: Tensor) -> QValues:
        """Return Q-values for observations ``[B, O]`` and actions ``[B, A]`` or ``[B, N, A]``."""
        if act.dim() == 2:
            out = self._values(torch.cat([obs, act], 1))
        else:
            repeated = obs.repeat_interleave(act.shape[1], 0)
            out = self._values(torch.cat([repeated, act.flatten(0, 1)], 1)).unflatten(1, act.shape[:2])
        cost = out[self.reward_ensemble :].unflatten(0, (self.num_costs, self.cost_ensemble))
        return QValues(out[: self.reward_ensemble], cost)

    def _values(self, inputs: Tensor) -> Tensor:
        """Return values ``[networks, B]``."""
        return torch.stack([network(inputs).squeeze(1) for network in self.networks])


class FeatureValueCritic(nn.Module):
    """Estimates the state values of the reward and of each cost by networks of the user's, one for each.

    The call is that of :class:`~fsrl_ext.net.ValueCritic`, which the class can replace.

    :param obs_dim: O.
    :param make_network: called once for each of ``S`` networks, with O.
    :param num_costs: C.
    :raises ValueError: ``make_network`` returns the same network twice, or none that computes features.
    """

    @checked(at_least_one=("obs_dim", "num_costs"))
    def __init__(self, obs_dim: int, make_network: MakeNetwork, *, num_costs: int = 1) -> None:
        super().__init__()
        self.num_costs = num_costs
        self.networks = _value_networks(make_network, obs_dim, 1 + num_costs)

    def forward(self, obs: Tensor) -> Tensor:
        """Return values ``[B, S]`` of states ``[B, O]``."""
        return torch.cat([network(obs) for network in self.networks], 1)


def _value_networks(make_network: MakeNetwork, in_dim: int, count: int) -> nn.ModuleList:
    """Return fresh networks from ``[B, I]`` to a value ``[B, 1]``."""
    networks = [make_network(in_dim) for _ in range(count)]
    if len({id(network) for network in networks}) < count:
        raise ValueError("critic must be a fresh network at every call, got the same one twice")
    features = [Features(network, in_dim, name="critic") for network in networks]
    return nn.ModuleList(nn.Sequential(x, nn.Linear(x.width, 1)) for x in features)
