"""What off-policy learning reads from a cost-aware buffer.

Dimension letters: ``B`` batch, ``K`` steps of the n-step window, ``C`` costs, ``M`` targets for each cost,
``S = 1 + C * M`` signals.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from tianshou.data import ReplayBuffer, ReplayBufferManager
from tianshou.data.types import RolloutBatchProtocol
from torch import Tensor

from fsrl_ext.functional.returns import nstep_targets
from fsrl_ext.policy.optimise import to_device


class NStepWindow(NamedTuple):
    """Places in a buffer that follow on each other."""

    indices: np.ndarray
    """``[K, B]``, the first row being where the windows start."""
    alive: np.ndarray
    """``[K, B]`` whether the step still belongs to the window: it ends with the episode or the data."""

    @property
    def last(self) -> np.ndarray:
        """``[B]`` the window's last place."""
        return self.indices[-1]


def nstep_window(buffer: ReplayBuffer, indices: np.ndarray, num_steps: int) -> NStepWindow:
    """The windows of ``num_steps`` steps that start at ``indices [B]``."""
    window = np.empty((num_steps, len(indices)), dtype=np.int64)
    alive = np.ones((num_steps, len(indices)), dtype=bool)
    window[0] = indices
    for k in range(1, num_steps):
        window[k] = buffer.next(window[k - 1])
        # next() stays where it is at the end of an episode and of the data.
        alive[k] = alive[k - 1] & (window[k] != window[k - 1])
    return NStepWindow(window, alive)


def read_window(
    batch: RolloutBatchProtocol,
    buffer: ReplayBuffer,
    indices: np.ndarray,
    num_steps: int,
    device: torch.device,
) -> tuple[NStepWindow, Tensor]:
    """The batch's n-step windows and the observations ``[B, O]`` after their last steps.

    ``batch.obs`` and ``batch.act`` become tensors on the device.
    """
    window = nstep_window(buffer, indices, num_steps)
    assert isinstance(batch.obs, np.ndarray | Tensor), "flat observations"
    batch.obs = to_device(batch.obs, device)
    batch.act = to_device(batch.act, device)
    return window, to_device(buffer.obs_next[window.last], device)


def nstep_returns(buffer: ReplayBuffer, window: NStepWindow, bootstrap: Tensor, *, gamma: float) -> Tensor:
    """n-step targets ``[B, S]`` of reward and all costs: one for each cost, or M with values of their own.

    A terminal state stops bootstrapping for reward and costs alike, a time limit does not.

    :param bootstrap: ``[B, S]`` values of the states after the windows' last steps.
    """
    signals = np.empty((*window.indices.shape, bootstrap.shape[1]), dtype=np.float32)
    signals[..., 0] = buffer.rew[window.indices]
    cost = buffer.cost[window.indices]
    signals[..., 1:] = cost.repeat((signals.shape[-1] - 1) // cost.shape[-1], axis=-1)
    return nstep_targets(
        to_device(signals, bootstrap.device),
        to_device(window.alive, bootstrap.device),
        to_device(buffer.terminated[window.last], bootstrap.device),
        bootstrap,
        gamma,
    )


class NewData:
    """Tells the first look at a buffer after something was added: the start of a collect cycle."""

    def __init__(self) -> None:
        self._seen: tuple[int, bytes] | None = None

    def arrived(self, buffer: ReplayBuffer) -> bool:
        """Whether the buffer differs from how the last call found it."""
        found = (len(buffer), np.asarray(buffer.last_index).tobytes())
        if found == self._seen:
            return False
        self._seen = found
        return True


def recent_step_cost(buffer: ReplayBuffer, window: int) -> np.ndarray:
    """Mean cost of a step ``[C]`` over the newest ``window`` stored steps of each environment."""
    parts = buffer.buffers if isinstance(buffer, ReplayBufferManager) else [buffer]
    recent = [
        start + (part.last_index[0] - np.arange(min(window, len(part)))) % part.maxsize
        for start, part in zip(buffer.subbuffer_edges[:-1], parts, strict=True)
    ]
    return buffer.cost[np.concatenate(recent)].mean(axis=0)
