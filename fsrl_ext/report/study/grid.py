"""Curves of several seeds on one grid, and their mean or IQM with intervals.

Seeds have points at different places, and end at different ones. The value of a seed at a place x of the
grid is the mean of its points within a window around x, each point weighted by its number of episodes; where
the window has fewer than two points, the value is interpolated linearly. A seed has no value before
its first and after its last point. A curve over seeds is drawn where every seed has a value, so that it is
never a mean over different seeds at different places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fsrl_ext.report.statistics import COVERAGE

POINTS = 200
"""Places of a grid."""

WINDOW = 0.02
"""Width of the window in which the points of training curves are averaged, as a share of the grid."""

RESAMPLES = 1_000
"""Resamples of the bootstrap of an IQM; its generator always starts from the same seed."""

Statistic = Literal["mean", "iqm"]


@dataclass(frozen=True)
class Points:
    """One seed's curve: places ``[T]`` in their order, values ``[T]`` and weights ``[T]``."""

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray

    def finite(self) -> Points:
        """The points whose value is finite."""
        there = np.isfinite(self.x) & np.isfinite(self.y) & (self.weights > 0)
        return Points(self.x[there], self.y[there], self.weights[there])


@dataclass(frozen=True)
class Band:
    """A curve over seeds: places, values, and the ends of the interval; NaN where there is none.

    :param seeds: how many seeds the values are over.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int


def on_grid(points: Points, grid: np.ndarray, window: float = 0.0) -> np.ndarray:
    """The values of a curve at the places of a grid; NaN outside of its own range.

    :param window: the width within which points are averaged; 0 to interpolate alone.
    """
    points = points.finite()
    if not len(points.x):
        return np.full(len(grid), np.nan)
    values = np.interp(grid, points.x, points.y, left=np.nan, right=np.nan)
    if window <= 0:
        return values
    sums = np.concatenate([[0.0], np.cumsum(points.weights * points.y)])
    weights = np.concatenate([[0.0], np.cumsum(points.weights)])
    first = np.searchsorted(points.x, grid - window / 2, side="left")
    end = np.searchsorted(points.x, grid + window / 2, side="right")
    inside = (end > first + 1) & np.isfinite(values)
    averaged = (sums[end] - sums[first])[inside] / (weights[end] - weights[first])[inside]
    values[inside] = averaged
    return values


def over_seeds(curves: list[Points], grid: np.ndarray, statistic: Statistic, *, window: float = 0.0) -> Band:
    """The curve over seeds: mean with a Student t interval, or IQM with a percentile bootstrap over seeds.

    :param curves: one for each seed.
    :return: the places of the grid at which every seed has a value.
    """
    table = np.array([on_grid(points, grid, window) for points in curves]).reshape(len(curves), len(grid))
    there = np.isfinite(table).all(0)
    values, x = table[:, there], grid[there]
    none = np.full(len(x), np.nan)
    if not len(x):
        return Band(x, none, none, none, len(curves))
    middle = values.mean(0) if statistic == "mean" else _iqm(values[None])[0]
    if len(values) < 2:
        return Band(x, middle, none, none, len(values))
    if statistic == "mean":
        from scipy import stats  # takes a third of a second

        factor = float(stats.t.ppf((1 + COVERAGE) / 2, len(values) - 1)) / math.sqrt(len(values))
        half = factor * values.std(0, ddof=1)
        return Band(x, middle, middle - half, middle + half, len(values))
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(
        _iqm(values[drawn]), (100 * (1 - COVERAGE) / 2, 100 * (1 + COVERAGE) / 2), axis=0
    )
    return Band(x, middle, low, high, len(values))


def _iqm(values: np.ndarray) -> np.ndarray:
    """IQM over the seeds of ``[R, seeds, places]``."""
    cut = int(0.25 * values.shape[1])
    return np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(1)
