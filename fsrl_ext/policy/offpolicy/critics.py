"""The critics of off-policy policies (settings, n-step targets, losses), and a buffer's newest costs.

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

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    gamma: float = 0.97
    """Discount factor of reward and costs, in (0, 1)."""
    tau: float = 0.05
    """Share of the way to the newest networks that the target networks move per update, in (0, 1]."""
    estimation_step: int = 2
    """Number n of steps in the n-step targets of the critics, >= 1."""
    cost_reduction: CostReduction = "mean"
    """Estimate that an ensemble of cost critics gives: its ``mean``, its maximum (``max``), or its mean plus
    ``ucb_scale`` standard deviations (``ucb``)."""
    ucb_scale: float = 1.0
    """Standard deviations above the ensemble's mean with ``cost_reduction`` ``ucb``, >= 0."""

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
        """Returns one estimate per cost, ``[C, ...]``, from the ensembles ``q.cost [C, E, ...]``."""
        return reduce_cost(q.cost, self.cost_reduction, self.ucb_scale)


def to_tensors(batch: RolloutBatchProtocol, device: torch.device) -> None:
    """Replaces ``batch.obs [B, O]`` and ``batch.act [B, A]`` by tensors on the device."""
    assert isinstance(batch.obs, np.ndarray | Tensor), "flat observations"
    batch.obs = to_device(batch.obs, device)
    batch.act = to_device(batch.act, device)


def nstep_returns(window: Any, bootstrap: Tensor, *, gamma: float, bonus: Tensor | None = None) -> Tensor:
    """Computes the n-step targets ``[B, S]`` of reward and costs, M for each cost.

    A terminal state stops bootstrapping for reward and costs alike, a time limit does not;
    :func:`~fsrl_ext.functional.returns.nstep_targets` gives the equation.

    :param window: result of the buffer's ``nstep_window``, with ``signals [B, K, 1 + C]``.
    :param bootstrap: ``[B, S]`` values of the states after the last steps of the windows.
    :param gamma: discount factor.
    :param bonus: ``[K, B]``, a bonus on the reward of the state after each step, or ``None``.
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
        bonus,
    )


class CollectCycles:
    """Tells new collects from old ones by the counts in ``buffer.episodes``, which collectors write.

    A cycle is the time from one collect to the next; all updates of a cycle see the same data.
    """

    def __init__(self) -> None:
        self._cycle: int | None = None
        self._count: int | None = None

    def arrived(self, buffer: Any) -> bool:
        """Says whether a cycle has begun: a collect was written into the buffer since the last call."""
        if buffer.episodes.cycle == self._cycle:
            return False
        self._cycle = buffer.episodes.cycle
        return True

    def episode_costs(self, buffer: Any) -> np.ndarray:
        """Returns the undiscounted costs ``[n, C]`` of the n episodes that ended since the last call.

        The first call returns no episode, because those in the buffer may be from random actions or from
        another policy.
        """
        seen, self._count = self._count, buffer.episodes.count
        return buffer.episodes.since(self._count if seen is None else seen)[0]

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts of collects and episodes at the last calls."""
        return {"cycle": self._cycle, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the counts that :meth:`state_dict` returned."""
        self._cycle, self._count = state["cycle"], state["count"]


def recent_step_cost(buffer: ReplayBuffer, window: int) -> np.ndarray:
    """Returns the mean cost per step ``[C]`` over the newest ``window`` stored steps of each environment."""
    parts = buffer.buffers if isinstance(buffer, ReplayBufferManager) else [buffer]
    recent = [
        start + (part.last_index[0] - np.arange(min(window, len(part)))) % part.maxsize
        for start, part in zip(buffer.subbuffer_edges[:-1], parts, strict=True)
    ]
    return buffer.cost[np.concatenate(recent)].mean(axis=0)


@dataclass(frozen=True)
class CriticLosses:
    """Squared errors of all critics on one batch, with their graph."""

    total: Tensor
    """0-dim: the batch's mean squared error, summed over signals and members."""
    q: QValues
    """Values that the critics gave the batch."""
    reward: Tensor
    """0-dim: mean squared error over the batch and the reward's members."""
    cost: Tensor
    """0-dim: mean squared error over the batch, costs and their members."""

    def metrics(self) -> dict[str, Tensor]:
        """Returns the losses and mean critic values to log, 0-dim, without their graph."""
        q_cost = self.q.cost.detach().mean((1, 2))
        values = {
            "loss/critic_reward": self.reward.detach(),
            "loss/critic_cost": self.cost.detach(),
            "q/reward": self.q.reward.detach().mean(),
        }
        return values | per_cost("q/cost", q_cost)


def critic_losses(q: QValues, targets: Tensor) -> CriticLosses:
    """Computes the squared error of each ensemble member on the targets ``[B, S]`` of its signal.

    :param q: ``reward [E, B]`` and ``cost [C, E, B]``.
    :param targets: n-step targets of :func:`nstep_returns`, reward first.
    """
    reward = (q.reward - targets[:, 0]).square().mean()
    cost = (q.cost - targets[:, 1:].T.unflatten(0, (len(q.cost), -1))).square().mean()
    total = reward * q.reward.shape[0] + cost * (q.cost.shape[0] * q.cost.shape[1])
    return CriticLosses(total, q, reward, cost)
