"""What off-policy policies share: settings of their critics, n-step targets, regression.

Dimension letters: ``B`` batch, ``K`` steps of the n-step window, ``C`` costs, ``E`` members of an ensemble,
``M`` targets for each cost, ``S = 1 + C * M`` signals (reward first): M is 1, or E where every member of a
cost's ensemble has a target of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch
from tianshou.data import ReplayBuffer, ReplayBufferManager
from tianshou.data.types import RolloutBatchProtocol
from torch import Tensor

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.returns import nstep_targets
from fsrl_ext.net.critic import CostReduction, QValues, reduce_cost
from fsrl_ext.policy.base import PolicyConfig, per_cost, to_device


@dataclass(frozen=True, kw_only=True)
class OffpolicyConfig(PolicyConfig):
    """Settings of critics that learn from a replay buffer.

    :raises ValueError: for values that cannot be used, naming them.
    """

    gamma: float = 0.97
    """Discount factor of reward and costs, in (0, 1)."""
    tau: float = 0.05
    """Polyak rate of the target networks, in (0, 1]."""
    estimation_step: int = 2
    """Steps of the n-step targets."""
    cost_reduction: CostReduction = "mean"
    """How an ensemble of cost critics becomes one estimate."""
    ucb_scale: float = 1.0
    """Standard deviations added by ``cost_reduction="ucb"``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            non_negative=("ucb_scale",),
            unit_interval=("tau",),
            at_least_one=("estimation_step",),
            choices={"cost_reduction": get_args(CostReduction)},
        )

    def reduce_cost(self, q: QValues) -> Tensor:
        """One estimate for each cost from its ensemble, ``[C, ...]``."""
        return reduce_cost(q.cost, self.cost_reduction, self.ucb_scale)


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


@dataclass(frozen=True)
class CriticLosses:
    """Squared errors of all critics."""

    total: Tensor
    """0-dim: the sum over signals and members of the batch's mean squared error."""
    q: QValues
    reward: Tensor
    """0-dim: mean over the reward's members."""
    cost: Tensor
    """0-dim: mean over costs and members."""

    def metrics(self) -> dict[str, Tensor]:
        """Losses and mean critic values."""
        q_cost = self.q.cost.detach().mean((1, 2))
        values = {
            "loss/critic_reward": self.reward.detach(),
            "loss/critic_cost": self.cost.detach(),
            "q/reward": self.q.reward.detach().mean(),
        }
        return values | per_cost("q/cost", q_cost)


def critic_losses(q: QValues, targets: Tensor) -> CriticLosses:
    """Regresses every ensemble member on its signal's targets ``[B, S]``."""
    reward = (q.reward - targets[:, 0]).square().mean()
    cost = (q.cost - targets[:, 1:].T.unflatten(0, (len(q.cost), -1))).square().mean()
    total = reward * q.reward.shape[0] + cost * (q.cost.shape[0] * q.cost.shape[1])
    return CriticLosses(total, q, reward, cost)
