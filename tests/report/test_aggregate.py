"""Statistics over tasks: rliable's values, SciPy's, and cases that are computed by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fsrl_ext.report.study import aggregate

REFERENCE = json.loads((Path(__file__).parent / "data" / "rliable.json").read_text())
CASES = REFERENCE["cases"]


def by_task(matrix):
    """rliable has ``[runs, tasks]``, and these functions one array for each task."""
    return list(np.array(matrix).T)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("side", ["one", "other"])
def test_iqm_and_profile_are_those_of_rliable(case, side):
    scores = by_task(case[side])
    assert aggregate.iqm(scores) == pytest.approx(case["iqm"][side], abs=1e-12)
    assert aggregate.iqm(scores) == pytest.approx(stats.trim_mean(np.concatenate(scores), 0.25), abs=1e-12)
    thresholds = np.array(REFERENCE["thresholds"])
    np.testing.assert_allclose(aggregate.profile(scores, thresholds), case["profile"][side], atol=1e-12)
    drawn = np.concatenate(aggregate._resampled(scores, np.random.default_rng(0)), axis=1)
    assert_percentiles(aggregate._iqm(drawn), case["iqm_interval"][side])
    assert_percentiles(aggregate._iqm(drawn), aggregate.iqm_interval(scores))
    shares, band = aggregate._profile(drawn, thresholds), aggregate.profile_band(scores, thresholds)
    for i, ends in enumerate(np.transpose(case["profile_band"][side])):
        assert_percentiles(shares[:, i], ends)
        assert_percentiles(shares[:, i], [x[i] for x in band])


def assert_percentiles(values, ends):
    """Check that 2.5% of the resampled values are below the lower end, and as many above the upper one.

    Few runs give few different values, so the ends of two bootstraps can be neighbours that lie apart.
    """
    values = np.round(values, 9)
    for end, sign in zip(np.round(ends, 9), (1, -1), strict=True):
        assert (sign * values < sign * end).mean() <= 0.025 + 0.006
        assert (sign * values <= sign * end).mean() >= 0.025 - 0.006


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_probability_of_improvement_is_that_of_rliable(case):
    one, other = by_task(case["one"]), by_task(case["other"])
    assert aggregate.improvement(one, other) == pytest.approx(case["improvement"], abs=1e-12)
    assert aggregate.improvement_interval(one, other) == pytest.approx(case["improvement_interval"], abs=0.03)
    assert aggregate.improvement(one, other) + aggregate.improvement(other, one) == pytest.approx(1.0)


def test_improvement_is_mann_and_whitneys_share_of_pairs():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 4, 6) / 3, rng.integers(0, 4, 9) / 3
    expected = stats.mannwhitneyu(one, other).statistic / (6 * 9)
    assert aggregate.improvement([one], [other]) == pytest.approx(expected)


def test_statistics_by_hand():
    scores = [np.array([0.0, 1.0]), np.array([0.5, 0.5, 2.0])]
    # Five runs: int(5 / 4) = 1 is cut at either end, 0.5, 0.5 and 1 are left.
    assert aggregate.iqm(scores) == pytest.approx(2 / 3)
    assert aggregate.profile(scores, np.array([0.0, 0.5, 2.0])).tolist() == [0.8, 0.4, 0.0]
    # 0 against 0.5: lost, 1 against 0.5: won; the tie of the second task is half a win.
    assert aggregate.improvement([np.array([0.0, 1.0]), np.ones(1)], [np.array([0.5]), np.ones(3)]) == 0.5


def test_one_run_for_each_task_has_no_interval():
    alone = [np.array([0.3]), np.array([0.9])]
    assert aggregate.iqm(alone) == pytest.approx(0.6)
    assert aggregate.iqm_interval(alone) is None
    assert aggregate.improvement_interval(alone, alone) is None
    assert aggregate.profile_band(alone, np.array([0.5])) is None


def test_runs_of_a_task_are_resampled_apart_from_those_of_other_tasks():
    # Tasks of constant scores: no resample can mix 0 and 1, so there is no spread.
    assert aggregate.iqm_interval([np.zeros(5), np.ones(5)]) == (0.5, 0.5)


def test_intervals_repeat_themselves():
    scores = [np.random.default_rng(0).random(5)]
    assert aggregate.iqm_interval(scores) == aggregate.iqm_interval(scores)
