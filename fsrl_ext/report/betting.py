"""Tests and bounds of means of bounded numbers that stay valid however often the data are looked at.

A bettor starts with a capital of 1 and bets on each observation that the mean is not the supposed one. If it
is, the capital is a nonnegative martingale, and the probability that it ever reaches ``1 / alpha`` is at most
``alpha`` (Ville 1939). One may therefore look after every observation and stop as soon as the capital is
there. Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024,
derive tests and bounds from this; the capital here is the mean over a fixed grid of constant bets, so it
needs no tuning and does not depend on the order of the observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fsrl_ext.errors import checked

BETS = 2.0 ** (-np.arange(21) / 2)
"""Shares of the capital at stake, from all of it down to a thousandth."""

_BISECTIONS = 30


@checked(open_unit_interval=("mean",))
def log_capital_above(values: Sequence[float] | np.ndarray, mean: float) -> float:
    """Log of the capital of a bettor on a true mean above ``mean``.

    :param values: independent observations in [0, 1] with one common mean.
    :param mean: the supposed mean.
    :return: a number whose exponential exceeds ``1 / alpha`` at any time with a probability of at most
        ``alpha``, if the true mean is at most ``mean``.
    :raises ValueError: a value is outside of [0, 1].
    """
    data = _unit_values(values)
    with np.errstate(divide="ignore"):  # who bets everything and loses has a capital of zero
        logs = np.log1p(BETS[:, None] * (data[None] / mean - 1.0)).sum(1)
    return float(np.logaddexp.reduce(logs) - math.log(len(BETS)))


@checked(open_unit_interval=("mean",))
def log_capital_below(values: Sequence[float] | np.ndarray, mean: float) -> float:
    """Log of the capital of a bettor on a true mean below ``mean``; see :func:`log_capital_above`."""
    return log_capital_above(1.0 - _unit_values(values), 1.0 - mean)


@checked(open_unit_interval=("confidence",))
def anytime_bounds(values: Sequence[float] | np.ndarray, confidence: float) -> tuple[float, float]:
    """A lower and an upper bound of the mean; each holds at all times with the probability ``confidence``.

    A test of a mean at the error probability ``1 - confidence`` refutes what lies outside of the bounds.

    :param values: independent observations in [0, 1] with one common mean.
    :return: both in [0, 1].
    :raises ValueError: a value is outside of [0, 1].
    """
    data = _unit_values(values)
    return _lower_bound(data, confidence), 1.0 - _lower_bound(1.0 - data, confidence)


def _lower_bound(data: np.ndarray, confidence: float) -> float:
    """The largest mean that the bettor on larger ones has refuted; the capital falls as the mean grows."""
    rich = -math.log(1.0 - confidence)
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if log_capital_above(data, middle) >= rich:
            low = middle
        else:
            high = middle
    return low


def _unit_values(values: Sequence[float] | np.ndarray) -> np.ndarray:
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not (np.isfinite(data).all() and ((data >= 0) & (data <= 1)).all()):
        raise ValueError("values must be a list of numbers in [0, 1]")
    return data
