"""Means, over many batches, of the cost that critics expect of the old policy.

Dimension letter: ``C`` costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class CostLevel:
    """Keeps a running mean over batches of the critics' expected cost ``[C]``, and a mean per old policy.

    Costs are rare, so the mean over the states of one batch says more about the batch than about the policy.

    :param rate: weight of the newest batch in the running mean, in (0, 1]; with 1 it is that batch's mean.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._running: Tensor | None = None
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, cost: Tensor) -> None:
        """Adds the mean ``[C]`` of one batch to both means."""
        self._count += 1
        self._sum = cost.clone() if self._sum is None else self._sum + cost
        if self._running is None:
            self._running = cost.clone()
        else:
            # The first batches have equal weights, so that the very first one is forgotten as fast.
            self._running = self._running.lerp(cost, max(self.rate, 1.0 / self._count))

    @property
    def running(self) -> Tensor:
        """The running mean ``[C]``; it needs a batch before."""
        assert self._running is not None, "add comes before running"
        return self._running

    def state_dict(self) -> dict[str, Any]:
        """Returns both means as lists of numbers, and the number of batches since the last restart."""
        running, total = (None if x is None else x.tolist() for x in (self._running, self._sum))
        return {"running": running, "sum": total, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self._running, self._sum = (
            None if x is None else torch.tensor(x, dtype=torch.float64)
            for x in (state["running"], state["sum"])
        )
        self._count = state["count"]

    def restart(self) -> Tensor | None:
        """Returns the mean ``[C]`` since the last restart, or ``None`` without a batch, and starts it anew.

        The running mean goes on.
        """
        mean = None if self._sum is None else self._sum / self._count
        self._sum, self._count = None, 0
        return mean
