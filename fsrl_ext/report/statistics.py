"""Statistics over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over seeds.

    :param values: one number per seed.
    :return: lower and upper end; both equal the value itself for a single seed.
    :raises ValueError: without values.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not len(data):
        raise ValueError(f"values must be one number per seed, got shape {list(data.shape)}")
    rng = np.random.default_rng(seed)
    means = data[rng.integers(len(data), size=(resamples, len(data)))].mean(axis=1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
