"""Act and estimate values on what a GRU remembers of an episode.

A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) carries a hidden state from step to step of an
episode. Layers of this package see the observation of a step and the hidden state after it.

While data are collected, the networks take one step at a time. In an update they take windows of
consecutive steps, each with the hidden state before its first step, and gradients go back through time to
the beginning of the window.

Dimension letters: ``B`` batch, ``W`` windows, ``L`` steps of a window, ``T`` steps of all windows, ``O``
observation, ``H`` hidden state, ``A`` action, ``C`` costs, ``S = 1 + C`` signals (reward first).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsrl_ext.errors import checked


@dataclass(frozen=True, eq=False)
class Windows:
    """Holds consecutive steps of episodes, with the hidden states before the first step of each window.

    The networks of this module return one row for each of the ``T`` valid steps, window by window. An index
    selects windows.

    :param obs: ``[W, L, O]`` observations; windows that are shorter than ``L`` end with zeros.
    :param valid: ``[W, L]`` bool: which of them are steps.
    :param actor_state: ``[W, H]`` hidden states of the actor.
    :param critic_state: ``[W, H]`` hidden states of the critic.
    """

    obs: Tensor
    valid: Tensor
    actor_state: Tensor
    critic_state: Tensor

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, windows: Any) -> Windows:
        return Windows(
            self.obs[windows], self.valid[windows], self.actor_state[windows], self.critic_state[windows]
        )

    @classmethod
    def of_single_steps(cls, obs: Tensor, actor_state: Tensor, critic_state: Tensor) -> Windows:
        """Make a window of each of the observations ``[T, O]``, with the hidden states ``[T, H]`` before."""
        valid = torch.ones(len(obs), 1, dtype=torch.bool, device=obs.device)
        return cls(obs[:, None], valid, actor_state, critic_state)

    def minibatches(self, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all windows once in random order, in minibatches of about ``batch_size`` steps.

        :param batch_size: at least one window is taken; ``None`` for all at once.
        :return: numbers of windows, and the numbers of their steps among all ``T`` steps, in the order in
            which the networks return them.
        """
        count = len(self.obs) if batch_size is None else max(batch_size // self.obs.shape[1], 1)
        steps = self.valid.flatten().cumsum(0).view_as(self.valid) - 1
        for windows in torch.randperm(len(self.obs), device=self.obs.device).split(count):
            yield windows, steps[windows][self.valid[windows]]


class GRUFeatures(nn.Module):
    """Computes features of observations and of the hidden state of a GRU, which follow one another.

    :param obs_dim: O.
    :param size: H.
    """

    @checked(at_least_one=("obs_dim", "size"))
    def __init__(self, obs_dim: int, size: int = 64) -> None:
        super().__init__()
        self.size = size
        self.width = obs_dim + size
        """Number of features, O + H."""
        self.gru = nn.GRU(obs_dim, size, batch_first=True)
        self.like: Tensor
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def forward(self, obs: Tensor, state: Tensor) -> Tensor:
        """Return features ``[W, L, O + H]``, whose last H numbers are the hidden states after each step.

        :param obs: ``[W, L, O]`` consecutive steps.
        :param state: ``[W, H]`` hidden states before the first of them.
        """
        # The kernels of cuDNN cannot be differentiated twice, as the Fisher matrix needs.
        plain = torch.backends.cudnn.flags(enabled=False) if obs.is_cuda else contextlib.nullcontext()
        with plain:
            hidden = self.gru(obs, state[None].contiguous())[0]
        return torch.cat([obs, hidden], -1)

    def step(self, obs: np.ndarray | Tensor, state: Any = None) -> tuple[Tensor, Tensor]:
        """Take one step.

        :param obs: ``[B, O]``.
        :param state: ``[B, H]``; ``None`` at the beginning of episodes.
        :return: features ``[B, O + H]``, and the hidden states ``[B, H]`` after the step.
        """
        seen = torch.as_tensor(obs, dtype=self.like.dtype, device=self.like.device).flatten(1)
        before = self.start(len(seen)) if state is None else torch.as_tensor(state).to(self.like)
        features = self(seen[:, None], before).squeeze(1)
        return features, features[:, -self.size :]

    def start(self, count: int) -> Tensor:
        """Return ``count`` hidden states as they are at the beginning of an episode, zeros ``[count, H]``."""
        return self.like.new_zeros(count, self.size)


class RecurrentActor(nn.Module):
    """Lets an actor of this package act on what a GRU remembers of the episode.

    The call is that of the actor. Its ``state`` is the hidden state, which the caller hands to the call at
    the next step of the episode, or ``None`` at the beginning of episodes.

    :param features: of observations.
    :param actor: takes ``[B, F]``, such as ``OnpolicyActor(features.width, A)``.
    :param bptt_steps: L, number of steps that gradients go back through time in an update.
    """

    @checked(at_least_one=("bptt_steps",), own=("features", "actor"))
    def __init__(self, features: GRUFeatures, actor: nn.Module, *, bptt_steps: int = 32) -> None:
        super().__init__()
        self.features = features
        self.actor = actor
        self.bptt_steps = bptt_steps

    def forward(
        self, obs: np.ndarray | Tensor | Windows, state: Any = None, info: Any = None
    ) -> tuple[Any, Any]:
        """Return what the actor returns for observations ``[B, O]``, and the hidden states after them.

        For :class:`Windows`, return what the actor returns for their ``T`` steps, and ``None``.
        """
        if isinstance(obs, Windows):
            return self.actor(self.features(obs.obs, obs.actor_state)[obs.valid])[0], None
        seen, state = self.features.step(obs, state)
        return self.actor(seen)[0], state


class RecurrentValueCritic(nn.Module):
    """Lets a critic of states value what a GRU of its own remembers of the episode.

    All networks of the critic see the same features.

    :param features: of observations.
    :param critic: takes ``[B, F]``, such as ``ValueCritic(features.width)``.
    """

    # `critic` is a module with the number of its costs; the annotation `Any` is there because a module's
    # attributes may be of any type.
    def __init__(self, features: GRUFeatures, critic: Any) -> None:
        super().__init__()
        self.num_costs: int = critic.num_costs
        self.features = features
        self.critic = critic

    def forward(self, windows: Windows) -> Tensor:
        """Return values ``[T, S]`` of the steps of windows."""
        return self.critic(self.features(windows.obs, windows.critic_state)[windows.valid])
