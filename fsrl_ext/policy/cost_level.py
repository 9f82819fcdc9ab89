"""The cost that critics expect of the old policy, over many batches."""

from __future__ import annotations

from torch import Tensor


class CostLevel:
    """Means over batches of the critics' expected cost ``[C]``: a running one, and one since the last pop.

    Costs are rare, so the mean over the states of one batch says more about the batch than about the policy.

    :param rate: of the running mean, in (0, 1]; 1 keeps the last batch's alone.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._running: Tensor | None = None
        self._sum: Tensor | None = None
        self._count = 0
        self._seen = 0

    def add(self, cost: Tensor) -> None:
        """Takes in one batch's mean ``[C]``."""
        self._count += 1
        self._seen += 1
        self._sum = cost.clone() if self._sum is None else self._sum + cost
        if self._running is None:
            self._running = cost.clone()
        else:
            # Right from the start, as the mean of few batches: no pull towards the first one.
            self._running = self._running.lerp(cost, max(self.rate, 1.0 / self._seen))

    @property
    def running(self) -> Tensor:
        """``[C]``."""
        assert self._running is not None, "no batch yet"
        return self._running

    def pop_mean(self) -> Tensor | None:
        """Mean ``[C]`` of the batches since the last call; None if there were none."""
        mean = None if self._sum is None else self._sum / self._count
        self._sum, self._count = None, 0
        return mean
