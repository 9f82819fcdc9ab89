"""Tests and bounds that hold at any time: capital by hand, coverage under repeated looks, monotony."""

import math

import numpy as np
import pytest
from scipy import optimize

from fsrl_ext.report.betting import BETS, anytime_bounds, log_capital_above, log_capital_below


def test_the_capital_is_the_mean_over_the_bets():
    values, mean = [0.0, 0.5, 1.0, 0.2], 0.3
    above = np.mean([np.prod([1 + f * (x - mean) / mean for x in values]) for f in BETS])
    below = np.mean([np.prod([1 + f * (mean - x) / (1 - mean) for x in values]) for f in BETS])
    assert log_capital_above(values, mean) == pytest.approx(math.log(above))
    assert log_capital_below(values, mean) == pytest.approx(math.log(below))


@pytest.mark.parametrize("mean", [0.03, 0.3, 0.8])
def test_the_capital_is_a_fair_game(mean):
    """The expected capital after one more value stays the same if the mean is the supposed one."""
    past = [0.1, 0.0, 0.4]
    for log_capital in (log_capital_above, log_capital_below):
        won, lost = (math.exp(log_capital([*past, x], mean)) for x in (1.0, 0.0))
        assert mean * won + (1 - mean) * lost == pytest.approx(math.exp(log_capital(past, mean)))


@pytest.mark.parametrize("log_capital", [log_capital_above, log_capital_below])
def test_errors_stay_rare_however_often_one_looks(log_capital):
    """Fixed sample tests of the same level would be wrong in about a third of such sequences."""
    rng, alpha, wrong = np.random.default_rng(0), 0.1, 0
    for _ in range(200):
        values = (rng.random(300) < 0.1).astype(float)
        wrong += any(log_capital(values[:n], 0.1) >= -math.log(alpha) for n in range(5, 301, 5))
    assert wrong <= 30  # 20 are allowed on average
    assert wrong > 0


def test_bounds_are_where_the_capital_reaches_its_mark():
    values = np.random.default_rng(1).beta(2, 20, size=150)
    low, high = anytime_bounds(values, 0.9)
    assert 0 < low < values.mean() < high < 1
    for log_capital, end in ((log_capital_above, low), (log_capital_below, high)):
        root = optimize.brentq(
            lambda m, f=log_capital: f(values, m) - math.log(10), *sorted((end, values.mean()))
        )
        assert root == pytest.approx(end, abs=1e-6)
    narrower = anytime_bounds(np.tile(values, 8), 0.9)
    assert low < narrower[0] < narrower[1] < high


def test_values_at_the_ends_of_the_range():
    assert anytime_bounds(np.zeros(50), 0.95)[0] == pytest.approx(0, abs=1e-6)
    assert anytime_bounds(np.ones(50), 0.95)[1] == pytest.approx(1, abs=1e-6)
    assert log_capital_below([1.0, 1.0], 0.5) < 0


def test_what_is_no_number_of_the_range_is_refused():
    for values in ([1.2], [-0.1], [math.nan], np.full((1, 1), 0.5)):
        with pytest.raises(ValueError, match=r"values must be a list of numbers in \[0, 1\]"):
            log_capital_above(values, 0.5)
    with pytest.raises(ValueError, match=r"mean must be in \(0, 1\), got 0"):
        log_capital_above([0.5], 0.0)
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\), got 1"):
        anytime_bounds([0.5], 1.0)
