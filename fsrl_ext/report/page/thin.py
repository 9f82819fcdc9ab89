"""Fewer points of a curve, without losing its peaks, and numbers of fewer digits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

SEED_POINTS = 400
"""Points of one seed's curve, at most."""

ALL_POINTS = 300_000
"""Points of the curves of all seeds, at most."""


def points_per_curve(curves: int) -> int:
    """How many points each of so many curves may have, so that all together stay small; at least 40."""
    return max(40, min(SEED_POINTS, ALL_POINTS // max(curves, 1)))


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a curve, at most ``most``: the lowest and the highest of each of ``most // 2`` equal parts.

    Every point is one of the curve's own, and the curve keeps its extremes. A curve of at most ``most``
    points stays as it is.

    :param x: ``[T]`` places in their order.
    :param y: ``[T]`` finite values.
    :param most: at least 2.
    """
    if len(x) <= most:
        return x, y
    kept: list[int] = []
    edges = np.linspace(0, len(x), most // 2 + 1).astype(int).tolist()
    for start, end in pairwise(edges):
        part = y[start:end]
        kept += sorted({start + int(part.argmin()), start + int(part.argmax())})
    return x[kept], y[kept]


def numbers(values: Iterable[float]) -> list[float | int | None]:
    """Values with five significant digits; ``None`` for one that is not finite."""
    return [_number(value) for value in np.asarray(values, dtype=float).tolist()]


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def steps(values: Iterable[float]) -> list[int]:
    """Environment steps as whole numbers."""
    return np.rint(np.asarray(values, dtype=float)).astype(int).tolist()
