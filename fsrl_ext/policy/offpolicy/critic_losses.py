"""Regression of reward and cost critics on their targets.

Dimension letters: ``B`` batch, ``C`` costs, ``E`` members of an ensemble, ``S = 1 + C`` signals, or
``1 + C * E`` where every member of a cost's ensemble has a target of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fsrl_ext.net.critic import QValues
from fsrl_ext.policy.metrics import per_cost


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
