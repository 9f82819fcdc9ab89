"""The steps of a collect as windows, for recurrent actors and critics.

An environment's data consist of segments, each of one episode. A segment begins with an episode, or with the
data if the episode began in the collect before. It is cut into windows of ``L`` steps; the last one may be
shorter.

Dimension letters: ``T`` steps of a collect, ``N`` environments, ``W`` windows, ``L`` steps of a window, ``O``
observation, ``H`` hidden state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.functional.returns import steps_before
from fsrl_ext.net import GRUFeatures, Windows


@dataclass(frozen=True, eq=False)
class Cuts:
    """Says where the windows of a collect begin and end.

    :param places: ``[W, L]`` numbers of the steps of each window.
    :param valid: ``[W, L]`` bool: which of them belong to the window.
    :param order: ``[W]`` number of windows before each in its segment.
    :param owners: ``[W]`` environment of each window.
    :param goes_on: ``[W]`` bool: whether the window begins with the data, in the middle of an episode.
    :param last_steps: ``[N]`` number of the last step of each environment.
    """

    places: Tensor
    valid: Tensor
    order: Tensor
    owners: Tensor
    goes_on: Tensor
    last_steps: Tensor

    @classmethod
    def of(
        cls, ends: np.ndarray, owners: np.ndarray, first_steps: np.ndarray, length: int, device: torch.device
    ) -> Cuts:
        """Cut the data of a collect.

        :param ends: ``[T]`` bool: whether the next step belongs to another episode or environment.
        :param owners: ``[T]`` environment of each step; its steps follow one another in the order of time.
        :param first_steps: ``[N]`` steps that the first episode of each environment had before the data.
        :param length: L.
        :param device: of the result.
        """
        steps = steps_before(
            np.concatenate([[True], ends[:-1]]), owners, np.zeros(len(first_steps), dtype=np.int64)
        )
        starts = np.flatnonzero(steps % length == 0)
        lengths = np.diff(np.append(starts, len(ends)))
        places = starts[:, None] + np.arange(min(length, int(lengths.max())))
        valid = np.arange(places.shape[1]) < lengths[:, None]
        begins = np.flatnonzero(np.diff(owners, prepend=-1))
        goes_on = np.isin(starts, begins) & (first_steps[owners[starts]] > 0)
        last = np.flatnonzero(np.diff(owners, append=len(first_steps)))
        last_steps = np.zeros(len(first_steps), dtype=np.int64)
        last_steps[owners[last]] = last
        parts = (
            np.minimum(places, len(ends) - 1),
            valid,
            steps[starts] // length,
            owners[starts],
            goes_on,
            last_steps,
        )
        return cls(*(torch.as_tensor(x, device=device) for x in parts))

    def windows_of(self, obs: Tensor) -> Tensor:
        """Return observations ``[T, O]`` as windows ``[W, L, O]``, with zeros after the end of a window."""
        return torch.where(self.valid[..., None], obs[self.places], 0.0)

    @torch.no_grad()
    def hidden_states(self, features: GRUFeatures, obs: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Run a GRU over the data.

        The first windows of all segments run side by side, then their second windows, and so on.

        :param obs: ``[T, O]``.
        :param before: ``[N, H]`` hidden states of episodes that began before the data.
        :return: hidden states ``[W, H]`` before each window, and ``[T, H]`` after each step.
        """
        windows = self.windows_of(obs)
        state = torch.where(self.goes_on[:, None], before[self.owners], 0.0)
        after = state.new_zeros(len(obs), features.size)
        ends = self.valid.sum(1) - 1
        follows = torch.cat([self.order[1:] > 0, self.order.new_zeros(1, dtype=torch.bool)])
        for order in range(int(self.order.max()) + 1):
            now = (self.order == order).nonzero().squeeze(1)
            hidden = features(windows[now], state[now])[..., -features.size :]
            after[self.places[now][self.valid[now]]] = hidden[self.valid[now]]
            goes_on = follows[now]
            rows = torch.arange(len(now), device=obs.device)
            state[now[goes_on] + 1] = hidden[rows, ends[now]][goes_on]
        return state, after


@dataclass(frozen=True, eq=False)
class Sequences:
    """The windows of a collect without observations, which may be normalised anew.

    :param cuts: where the windows are.
    :param actor_state: ``[W, H]`` hidden states of the actor that collected, before each window.
    :param critic_state: ``[W, H]`` hidden states of the critic before its update, before each window.
    """

    cuts: Cuts
    actor_state: Tensor
    critic_state: Tensor

    def windows(self, obs: Tensor) -> Windows:
        """Return the windows of observations ``[T, O]``."""
        return Windows(self.cuts.windows_of(obs), self.cuts.valid, self.actor_state, self.critic_state)
