"""What off-policy policies share: settings of their critics, n-step targets, regression.

Dimension letters: ``B`` batch, ``K`` steps of the n-step window, ``C`` costs, ``E`` members of an ensemble,
``M`` targets for each cost, ``S = 1 + C * M`` signals (reward first): M is 1, or E where every member of a
cost's ensemble has a target of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

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


def to_tensors(batch: RolloutBatchProtocol, device: torch.device) -> None:
    """Makes ``batch.obs [B, O]`` and ``batch.act [B, A]`` tensors on the device."""
    assert isinstance(batch.obs, np.ndarray | Tensor), "flat observations"
    batch.obs = to_device(batch.obs, device)
    batch.act = to_device(batch.act, device)


def nstep_returns(window: Any, bootstrap: Tensor, *, gamma: float) -> Tensor:
    """n-step targets ``[B, S]`` of reward and all costs: one for each cost, or M with values of their own.

    A terminal state stops bootstrapping for reward and costs alike, a time limit does not.

    :param window: what the buffer's ``nstep_window`` returned.
    :param bootstrap: ``[B, S]`` values of the states after the windows' last steps.
    """
    signals = window.signals
    if signals.shape[-1] != bootstrap.shape[1]:
        repeats = (bootstrap.shape[1] - 1) // (signals.shape[-1] - 1)
        signals = np.concatenate([signals[..., :1], signals[..., 1:].repeat(repeats, axis=-1)], axis=-1)
    return nstep_targets(
        to_device(signals, bootstrap.device),
        to_device(window.alive, bootstrap.device),
        to_device(window.terminated, bootstrap.device),
        bootstrap,
        gamma,
    )


class CollectCycles:
    """Tells new collects from old ones, by the counts that a collector leaves on its buffer."""

    def __init__(self) -> None:
        self._cycle: int | None = None
        self._count: int | None = None

    def arrived(self, buffer: Any) -> bool:
        """Whether a collect was written into the buffer since the last call, which starts a cycle."""
        if buffer.episodes.cycle == self._cycle:
            return False
        self._cycle = buffer.episodes.cycle
        return True

    def episode_costs(self, buffer: Any) -> np.ndarray:
        """Undiscounted costs ``[E, C]`` of the episodes that ended since the last call.

        The first call returns none: those episodes may be from random actions or from another policy.
        """
        seen, self._count = self._count, buffer.episodes.count
        return buffer.episodes.since(self._count if seen is None else seen)[0]

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {"cycle": self._cycle, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` returned."""
        self._cycle, self._count = state["cycle"], state["count"]


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
