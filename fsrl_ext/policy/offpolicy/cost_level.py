"""The cost that critics expect of the old policy, over many batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class CostLevel:
    """Means over batches of the critics' expected cost ``[C]``: a running one, and one since the last start.

    Costs are rare, so the mean over the states of one batch says more about the batch than about the policy.

    :param rate: of the running mean, in (0, 1]; 1 keeps the last batch's alone.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._running: Tensor | None = None
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, cost: Tensor) -> None:
        """Takes in one batch's mean ``[C]``."""
        self._count += 1
        self._sum = cost.clone() if self._sum is None else self._sum + cost
        if self._running is None:
            self._running = cost.clone()
        else:
            # Of few batches the plain mean: the first one does not linger.
            self._running = self._running.lerp(cost, max(self.rate, 1.0 / self._count))

    @property
    def running(self) -> Tensor:
        """``[C]``."""
        assert self._running is not None, "no batch yet"
        return self._running

    def state_dict(self) -> dict[str, Any]:
        """The means as lists of numbers."""
        running, total = (None if x is None else x.tolist() for x in (self._running, self._sum))
        return {"running": running, "sum": total, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` returned."""
        self._running, self._sum = (
            None if x is None else torch.tensor(x, dtype=torch.float64)
            for x in (state["running"], state["sum"])
        )
        self._count = state["count"]

    def restart(self) -> Tensor | None:
        """Begins anew for another old policy; returns the mean ``[C]`` since the last start, if any."""
        mean = None if self._sum is None else self._sum / self._count
        self._sum, self._count = None, 0
        return mean
