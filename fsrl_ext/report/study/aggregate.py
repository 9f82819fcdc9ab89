"""Statistics over tasks: IQM, probability of improvement, performance profile, and bootstrap intervals.

The definitions are those of Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
precipice", as their package rliable computes them. Scores are one array ``[N]`` for each task, one number per
run; tasks may have different numbers of runs. ``benchmarks/rliable_reference.py`` makes the values that the
tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Scores = Sequence[np.ndarray]

RESAMPLES = 5_000
"""Resamples of a bootstrap; their generator always starts from the same seed, so a table repeats itself."""

_COVERAGE = 0.95


def iqm(scores: Scores) -> float:
    """The interquartile mean: the mean of all runs but the lowest and the highest quarter.

    Of N runs, ``int(N / 4)`` are cut at either end, so nothing is cut of fewer than four.
    """
    return float(_iqm(np.concatenate([*scores])[None])[0])


def _iqm(values: np.ndarray) -> np.ndarray:
    """IQM of every row of ``[R, N]``."""
    cut = int(0.25 * values.shape[1])
    return np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(1)


def iqm_interval(scores: Scores) -> tuple[float, float] | None:
    """Percentile interval of the IQM, stratified bootstrap: the runs of each task are resampled apart.

    :return: lower and upper end; ``None`` if no task has a second run, since one run has no spread.
    """
    if all(len(x) < 2 for x in scores):
        return None
    return _percentiles(_iqm(np.concatenate(_resampled(scores, _generator()), axis=1)))


def improvement(one: Scores, other: Scores) -> float:
    """Probability that a run of the one is better than a run of the other, on a task drawn at random.

    On each task it is the share of the pairs of runs in which the one has the higher score; ties count half
    (Mann and Whitney's U over the number of pairs).
    """
    return float(np.mean([_won(x[None], y[None])[0] for x, y in zip(one, other, strict=True)]))


def improvement_interval(one: Scores, other: Scores) -> tuple[float, float] | None:
    """Percentile interval of the probability of improvement; both sides' runs are resampled task by task.

    :return: lower and upper end; ``None`` if no task has a second run on either side.
    """
    if all(len(x) < 2 for x in (*one, *other)):
        return None
    generator = _generator()
    pairs = zip(_resampled(one, generator), _resampled(other, generator), strict=True)
    return _percentiles(np.mean([_won(x, y) for x, y in pairs], axis=0))


def _won(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``[R]`` shares of won pairs of the rows of ``[R, N]`` and ``[R, M]``."""
    difference = one[:, :, None] - other[:, None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean((1, 2))


def profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """The performance profile: for each threshold the share of all runs whose score is above it."""
    return _profile(np.concatenate([*scores])[None], thresholds)[0]


def profile_band(scores: Scores, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Pointwise percentile intervals of the profile, stratified bootstrap; ``None`` as for the IQM."""
    if all(len(x) < 2 for x in scores):
        return None
    shares = _profile(np.concatenate(_resampled(scores, _generator()), axis=1), thresholds)
    low, high = np.percentile(shares, _ends(), axis=0)
    return low, high


def _profile(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """``[R, thresholds]`` shares of the rows of ``[R, N]``."""
    return np.stack([(values > x).mean(1) for x in thresholds], axis=1)


def _resampled(scores: Scores, generator: np.random.Generator) -> list[np.ndarray]:
    """``[RESAMPLES, N]`` draws with replacement from the runs of each task."""
    return [x[generator.integers(len(x), size=(RESAMPLES, len(x)))] for x in map(np.asarray, scores)]


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, _ends())
    return float(low), float(high)


def _ends() -> tuple[float, float]:
    return 100 * (1 - _COVERAGE) / 2, 100 * (1 + _COVERAGE) / 2


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)
