"""Intervals with a stated coverage: Student t for means, Clopper-Pearson for shares.

Both are intervals over independent observations: seeds, tasks, or episodes of one fixed policy. The caller
says which, because only the caller knows. ``benchmarks/interval_coverage.py`` measures how often they hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

COVERAGE = 0.95
"""Share of the intervals that hold the true mean or share, if their assumptions hold."""

FEW = 5
"""With fewer observations than this, :func:`caution` warns."""


def mean_interval(
    values: Sequence[float], *, lowest: float = -math.inf, highest: float = math.inf
) -> tuple[float, float] | None:
    """Student's t interval of the mean of independent, about normal values; coverage 95%.

    Without spread in the values the interval is a point, which then says nothing about rarer values.

    :param values: one number per observation.
    :param lowest: least mean that is possible; the interval is cut there, which does not change its coverage.
    :param highest: largest mean that is possible.
    :return: lower and upper end; ``None`` for a single value, which tells nothing about the spread.
    :raises ValueError: without values, or if a value is outside of ``lowest`` to ``highest``.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not len(data):
        raise ValueError(f"values must be one number per observation, got shape {list(data.shape)}")
    if data.min() < lowest or data.max() > highest:
        raise ValueError(f"values must be {lowest:g} to {highest:g}, got {data.min():g} to {data.max():g}")
    if len(data) == 1:
        return None
    from scipy import stats  # takes a third of a second, which commands without intervals need not spend

    mean, error = float(data.mean()), float(data.std(ddof=1)) / math.sqrt(len(data))
    half = float(stats.t.ppf((1 + COVERAGE) / 2, len(data) - 1)) * error
    return max(mean - half, lowest), min(mean + half, highest)


def cost_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """:func:`mean_interval` of costs, cut at 0 where no cost is negative."""
    return mean_interval(values, lowest=0.0 if min(values, default=0.0) >= 0 else -math.inf)


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Exact binomial interval of a share (Clopper and Pearson 1934); coverage at least 95%.

    :param count: observations that count.
    :param total: all observations, independent of each other and alike.
    :raises ValueError: for a count that is not 0 to ``total``, and without observations.
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count must be 0 to total, and total >= 1, got {count} of {total}")
    from scipy import stats  # see mean_interval

    interval = stats.binomtest(int(count), int(total)).proportion_ci(COVERAGE, method="exact")
    return float(interval.low), float(interval.high)


def interval_note(independent: str) -> dict[str, Any]:
    """What files of numbers say about their intervals.

    :param independent: what counts as one observation, as ``"episodes"``.
    """
    return {
        "coverage": COVERAGE,
        "of_means": "Student t",
        "of_shares": "exact binomial (Clopper-Pearson)",
        "independent": independent,
    }


def caution(counts: Iterable[int], unit: str) -> str:
    """A warning if there are intervals of few observations, with a line break before it; else nothing.

    :param counts: numbers of observations.
    :param unit: what an observation is, in the plural.
    """
    few = sorted({n for n in counts if n < FEW})
    if not few:
        return ""
    numbers = ", ".join(map(str, few))
    return (
        f"\nwarning: fewer than {FEW} {unit} ({numbers}). The interval of a mean is then wide, and holds\n"
        f"its {COVERAGE:.0%} only if the values are about normal: it can miss rare costs. A single value\n"
        "has no interval."
    )


def mean_text(mean: float, interval: Sequence[float] | None, digits: int = 1) -> str:
    """The mean with its interval in brackets, or alone without one."""
    # Sums differ by rounding between machines, which must not decide the digits of a mean such as 8.35.
    texts = [f"{round(x, 9):z.{digits}f}" for x in (mean, *(interval or ()))]
    return texts[0] if interval is None else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def share_text(share: float, interval: Sequence[float] | None) -> str:
    """The share in per cent with its interval in brackets, or alone without one."""
    if interval is None:
        return f"{share:.0%}"
    return f"{share:.0%} [{interval[0]:.0%}, {interval[1]:.0%}]"
