"""The points that a collect cycle adds to the curves of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data import CostCollectStats


def training_curves(
    stats: CostCollectStats,
    cost_limit: tuple[float, ...],
    limit_unit: LimitUnit = "episode",
    cost_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the points of the training episodes of a cycle: means and sums, for arrays are never logged.

    ``costs_stat`` is about sums of costs in any unit of the limits; ``violation`` is in that unit.
    """
    keys: Sequence[str | int] = cost_names or range(len(cost_limit))

    def by_cost(values: np.ndarray) -> dict[str | int, float]:
        return dict(zip(keys, values.tolist(), strict=True))

    curves: dict[str, Any] = asdict(stats)
    if curves["costs_stat"] is not None:
        curves["costs_stat"] = {keys[i]: x for i, x in curves["costs_stat"].items()}
    excess = np.maximum(stats.limited_costs(limit_unit) - np.array(cost_limit), 0.0)
    curves["violation"] = by_cost(excess.sum(0))
    if stats.discounted_returns is not None and stats.discounted_costs is not None:
        curves["discounted_return"] = float(stats.discounted_returns.mean())
        curves["discounted_cost"] = by_cost(stats.discounted_costs.mean(0))
    return curves
