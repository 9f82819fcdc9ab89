"""Statistics over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """SciPy's percentile bootstrap interval of the mean, over seeds or episodes.

    :param values: one number per seed.
    :param seed: of the resampling.
    :return: lower and upper end; both equal the value itself for a single seed.
    :raises ValueError: without values.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not len(data):
        raise ValueError(f"values must be one number per seed, got shape {list(data.shape)}")
    if len(data) == 1:
        return float(data[0]), float(data[0])
    from scipy import stats  # takes a third of a second, which commands without intervals need not spend

    low, high = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)
