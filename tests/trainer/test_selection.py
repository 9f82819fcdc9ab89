"""Selection is by feasibility first, then by return."""

import dataclasses
import math

import numpy as np
import pytest

from fsrl_ext.data import CostCollectStats
from fsrl_ext.trainer.selection import Evaluation, is_clearly_not_best


def evaluation(returns, costs, limit=(10.0,)):
    costs = np.asarray(costs, dtype=float)
    costs = costs[:, None] if costs.ndim == 1 else costs
    return Evaluation(env_step=0, returns=np.asarray(returns, dtype=float), costs=costs, cost_limit=limit)


def test_feasible_means_mean_plus_one_standard_error_within_the_limit():
    costs = [8.0, 12.0, 8.0, 12.0]  # mean 10, standard error 1.1547
    assert not evaluation(np.zeros(4), costs, (11.1,)).feasible
    assert evaluation(np.zeros(4), costs, (11.2,)).feasible
    assert evaluation(np.zeros(4), costs).cost_stderr == pytest.approx(2.3094 / 2, abs=1e-4)


def test_every_cost_must_be_feasible():
    costs = np.array([[1.0, 30.0], [1.0, 30.0]])
    assert not evaluation([0, 0], costs, (10.0, 25.0)).feasible
    assert evaluation([0, 0], costs, (10.0, 35.0)).feasible
    assert evaluation([0, 0], costs, (10.0, math.inf)).feasible


def test_feasible_beats_return_and_then_return_decides():
    greedy = evaluation([100, 100], [20, 20])
    safe = evaluation([50, 50], [5, 5])
    safer = evaluation([40, 40], [0, 0])
    assert safe.is_better_than(greedy)
    assert not greedy.is_better_than(safe)
    assert safe.is_better_than(safer)
    assert not safer.is_better_than(safe)
    assert greedy.is_better_than(None)


def test_among_infeasible_the_least_violation_wins():
    far, near = evaluation([100, 100], [40, 40]), evaluation([1, 1], [11, 11])
    assert near.is_better_than(far)
    assert not far.is_better_than(near)


def test_zero_limit_and_no_limit():
    assert evaluation([0, 0], [0, 0], (0.0,)).feasible
    assert not evaluation([0, 0], [0, 1], (0.0,)).feasible
    assert evaluation([0, 0], [1e9, 1e9], (math.inf,)).feasible


def test_share_above_counts_an_episode_once():
    costs = np.array([[11.0, 30.0], [1.0, 30.0], [1.0, 1.0], [1.0, 1.0]])
    assert evaluation(np.zeros(4), costs, (10.0, 25.0)).share_above_limit == 0.5


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\[2 episodes, 1 costs\].*got \[3, 1\]"):
        evaluation([0, 0], [0, 0, 0])
    with pytest.raises(ValueError, match="seeds must be 2, one for each episode, got 3"):
        dataclasses.replace(evaluation([0, 0], [0, 0]), seeds=(1, 2, 3))


BEST = ([98, 102] * 5, [4, 6] * 5)  # deviations 2.1 and 1.05


@pytest.mark.parametrize(
    ("returns", "costs", "clear"),
    [
        ([100] * 5, [5] * 5, False),
        ([98] * 5, [5] * 5, False),  # two standard errors of the difference are 2.31
        ([97] * 5, [5] * 5, True),
        ([80, 120, 97, 90, 98], [5] * 5, False),  # its own deviation is larger
        ([200] * 5, [10.9] * 5, False),  # two standard errors of the mean are 0.94
        ([200] * 5, [11] * 5, True),
        ([200] * 5, [0, 0, 0, 0, 70], False),
        ([90], [5], False),  # one episode says nothing
    ],
)
def test_what_is_clearly_not_best(returns, costs, clear):
    candidate, best = evaluation(returns, costs), evaluation(*BEST)
    assert is_clearly_not_best(candidate, best) == clear
    if clear:
        assert not candidate.is_better_than(best)
    assert not is_clearly_not_best(candidate, None)
    assert not is_clearly_not_best(candidate, evaluation(BEST[0], [20] * 10))  # not feasible


def test_verdicts_are_about_the_costs_in_the_unit_of_the_limits():
    stats = CostCollectStats(
        returns=np.zeros(2),
        costs=np.array([[20.0], [30.0]]),
        discounted_costs=np.array([[4.0], [6.0]]),
    )
    common = {"env_step": 7, "cost_limit": (10.0,)}
    discounted = Evaluation.of_collect(stats, limit_unit="discounted", order=np.array([1, 0]), **common)
    assert discounted.feasible
    assert discounted.share_above_limit == 0.0
    assert (discounted.costs.tolist(), discounted.other_costs.tolist()) == ([[6.0], [4.0]], [[30.0], [20.0]])
    assert discounted.summary()["cost_mean"] == [5.0]
    assert discounted.summary()["other_cost_mean"] == [25.0]
    plain = Evaluation.of_collect(stats, limit_unit="episode", **common)
    assert not plain.feasible
    assert plain.other_costs.tolist() == [[4.0], [6.0]]
    both = plain.followed_by(plain)
    assert (both.costs[:, 0].tolist(), both.other_costs[:, 0].tolist()) == ([20, 30, 20, 30], [4, 6, 4, 6])
    stats.discounted_costs = None
    unknown = Evaluation.of_collect(stats, limit_unit="episode", **common)
    assert (unknown.other_costs, "other_cost_mean" in unknown.summary()) == (None, False)
    assert plain.followed_by(unknown).other_costs is None
    with pytest.raises(ValueError, match="limit_unit='discounted' needs the discounted costs"):
        Evaluation.of_collect(stats, limit_unit="discounted", **common)
    with pytest.raises(ValueError, match=r"other_costs must have the shape \[2, 1\] of costs, got \[2\]"):
        dataclasses.replace(plain, other_costs=np.zeros(2))
