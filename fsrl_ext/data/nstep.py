"""Reading windows of consecutive steps from a cost-aware buffer, for n-step returns.

Dimensions: ``B`` windows, ``K`` steps of each, ``C`` costs, ``O`` observation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tianshou.data import ReplayBuffer


class NStepWindow(NamedTuple):
    """``B`` windows of up to ``K`` steps that follow on each other in their buffer."""

    signals: np.ndarray
    """``[K, B, 1 + C]`` (float32) the reward and the costs of every step."""
    alive: np.ndarray
    """``[K, B]`` (bool) whether the step belongs to the window, which ends with its episode or with the data.
    A step that does not repeats the last one that does."""
    terminated: np.ndarray
    """``[B]`` (bool) whether the last step led to a terminal state. A time limit is not one."""
    ended: np.ndarray
    """``[B]`` (bool) whether the episode ended with the last step, by a terminal state or a time limit."""
    obs_next: np.ndarray
    """``[B, O]`` the observation after the last step, as stored."""
    places: np.ndarray
    """``[K, B]`` where each step is in the buffer; ``buffer.obs_next[places]`` are the observations after the
    steps."""


def nstep_window(buffer: ReplayBuffer, indices: np.ndarray, num_steps: int) -> NStepWindow:
    """Read the windows of up to ``num_steps`` steps that start at the transitions ``indices [B]``.

    :param buffer: a buffer that stores ``cost [S, C]``.
    :raises ValueError: ``num_steps`` is below 1 or more than an environment has places in the buffer, or the
        buffer does not store ``obs_next``.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")
    if not buffer._save_obs_next:
        raise ValueError("the buffer must store obs_next (ignore_obs_next=False)")
    places_each = np.diff(buffer.subbuffer_edges).min()
    if num_steps > places_each:
        raise ValueError(
            f"num_steps must be <= {places_each}, the places that the buffer of size {buffer.maxsize} has "
            f"for each environment, got {num_steps}"
        )
    places = np.empty((num_steps, len(indices)), dtype=np.int64)
    alive = np.ones((num_steps, len(indices)), dtype=bool)
    places[0] = indices
    for k in range(1, num_steps):
        places[k] = buffer.next(places[k - 1])
        # next() stays where it is at the end of an episode and of the data.
        alive[k] = alive[k - 1] & (places[k] != places[k - 1])
    last, cost = places[-1], buffer.cost[places]
    signals = np.empty((*places.shape, 1 + cost.shape[-1]), dtype=np.float32)
    signals[..., 0] = buffer.rew[places]
    signals[..., 1:] = cost
    return NStepWindow(
        signals, alive, buffer.terminated[last], buffer.done[last], buffer.obs_next[last], places
    )
