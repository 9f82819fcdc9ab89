"""The measures of a diagnosis against SciPy and known answers, and the rules of its verdict."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.diagnosis.findings import findings
from fsrl_ext.report.diagnosis.measures import (
    Estimate,
    action_order,
    action_slope,
    bias,
    calibration,
    discounted_sums,
    largest_share,
    phase_means,
    rank_correlation,
    ratio_of_means,
    realised_sums,
    resampled,
    spread,
    tail_window,
)
from fsrl_ext.report.diagnosis.training import training_numbers


@pytest.fixture
def generator():
    return np.random.default_rng(3)


# --- sums ---


def test_discounted_sums_are_those_of_the_definition(generator):
    signals, gamma, tail = generator.normal(size=(7, 2)), np.array([0.9, 0.5]), np.array([2.0, -1.0])
    sums = discounted_sums(signals, gamma, tail)
    for t in range(7):
        powers = gamma[None] ** np.arange(7 - t)[:, None]
        expected = (powers * signals[t:]).sum(0) + gamma ** (7 - t) * tail
        np.testing.assert_allclose(sums[t], expected)


@pytest.mark.parametrize(
    ("gamma", "length", "window"), [(0.99, 1000, 299), (0.9, 200, 29), (0.999, 1000, 500)]
)
def test_the_window_leaves_little_weight_to_the_time_after_it(gamma, length, window):
    assert tail_window(gamma, length) == window
    assert gamma**window <= 0.05 or window == length // 2


def test_a_constant_signal_is_worth_the_same_in_every_counted_state():
    signals = [np.full((100, 2), 3.0), np.full((100, 2), 3.0)]
    gamma, ends = np.array([0.9, 0.9]), np.array([False, True])
    realised = realised_sums(signals, [False, False], gamma=gamma, ends=ends, time_limit=100)
    np.testing.assert_allclose(realised.sums[0][:, 0], 30.0)
    assert realised.counted[0][:, 0].sum() == 100 - tail_window(0.9, 100) + 1
    # An end is no place to look beyond: the last state is worth one step, and all states count.
    assert realised.sums[0][-1, 1] == 3.0
    assert realised.counted[0][:, 1].all()
    assert 0 < realised.tail_weight[0] <= 0.05
    assert realised.tail_weight[1] == 0.0


def test_nothing_follows_a_terminal_state():
    signals = [np.full((100, 1), 3.0), np.full((10, 1), 3.0)]
    realised = realised_sums(
        signals, [False, True], gamma=np.array([0.9]), ends=np.array([False]), time_limit=100
    )
    assert realised.sums[1][-1, 0] == 3.0
    assert realised.counted[1].all()
    assert not realised.counted[0].all()


# --- statistics ---


def test_rank_correlation_is_scipys_ties_included(generator):
    rows = generator.integers(0, 6, size=(50, 2)).astype(float)
    assert rank_correlation(rows) == pytest.approx(stats.spearmanr(rows[:, 0], rows[:, 1]).statistic)
    assert rank_correlation(np.stack([np.ones(5), np.arange(5)], 1)) == 0.0
    assert math.isnan(rank_correlation(np.stack([np.arange(5), np.ones(5)], 1)))


def test_intervals_resample_groups_and_not_rows(generator):
    """The rows of a group are copies, so that the interval is as wide as that of the groups' means."""
    means = generator.normal(size=30)
    copies = resampled(lambda x: float(x.mean()), [np.full((100, 1), x) for x in means])
    alone = resampled(lambda x: float(x.mean()), [np.full((1, 1), x) for x in means])
    assert copies == pytest.approx(alone)
    half = 1.96 * means.std() / math.sqrt(30)
    assert alone.high - alone.low == pytest.approx(2 * half, rel=0.25)


def test_one_group_has_no_interval():
    estimate = resampled(bias, [np.array([[1.0, 2.0], [3.0, 2.5]])])
    assert estimate.value == -0.25
    assert math.isnan(estimate.low)
    assert math.isnan(resampled(bias, [np.zeros((0, 2))]).value)


def test_ratio_of_means_to_nothing_is_unknown():
    assert ratio_of_means(np.array([[1.0, 2.0], [3.0, 6.0]])) == 0.5
    assert math.isnan(ratio_of_means(np.array([[1.0, 0.0]])))


def test_spread_is_split_into_actions_and_states(generator):
    states = generator.normal(0, 3.0, size=(20_000, 1))
    result = spread(states + generator.normal(0, 0.5, size=(20_000, 4)))
    assert result.over_actions == pytest.approx(0.5, rel=0.02)
    assert result.over_states == pytest.approx(3.0, rel=0.02)
    # Sampled actions alone make no spread over states.
    alone = spread(generator.normal(0, 0.5, size=(20_000, 4)))
    assert alone.over_states < 0.05
    assert spread(np.ones((5, 4))).over_actions == 0.0


def test_a_right_critic_has_slope_one_under_noise_and_a_constant_one_ranks_nothing(generator):
    worth = generator.normal(size=(400, 4))
    realised = worth + generator.normal(0, 2.0, size=(400, 4)) + generator.normal(0, 9.0, size=(400, 1))
    right = action_order(worth, realised)
    assert right.slope.low < 1.0 < right.slope.high
    assert right.slope.value == pytest.approx(1.0, abs=0.2)
    assert right.correlation.low > 0.0
    assert right.predicted_deviation == pytest.approx(1.0, abs=0.1)
    assert right.realised_deviation == pytest.approx(math.sqrt(5.0), abs=0.2)
    constant = action_order(np.ones((400, 4)), realised)
    assert constant.correlation == Estimate(0.0, 0.0, 0.0)
    assert math.isnan(constant.slope.value)
    wrong = action_order(generator.normal(size=(400, 4)), realised)
    assert wrong.correlation.low < 0.0 < wrong.correlation.high
    assert wrong.slope.high < 0.5


def test_the_slope_over_played_actions_is_one_for_a_right_critic(generator):
    """States are worth far more than actions, and the mean of few other actions is noisy."""
    predicted, realised = [], []
    for _ in range(40):
        state, worth = generator.normal(0, 5.0, size=500), generator.normal(size=500)
        others = generator.normal(size=(500, 4)).mean(1)
        predicted.append(worth - others)
        realised.append(state + worth + generator.normal(0, 3.0, size=500))
    right = action_slope(predicted, realised, 4)
    assert right.low < 1.0 < right.high
    assert right.value == pytest.approx(1.0, abs=0.15)
    wrong = action_slope([generator.normal(size=500) for _ in range(40)], realised, 4)
    assert wrong.low < 0.0 < wrong.high < 0.5


def test_states_without_a_realised_difference_tell_nothing():
    order = action_order(np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[0.0, 0.0], [1.0, 3.0]]))
    assert order.states == 1
    assert order.correlation.value == 1.0


def test_the_dearest_phase_has_an_interval_over_episodes(generator):
    phases = generator.poisson([1.0, 1.0, 8.0], size=(50, 3)).astype(float)
    place, share = largest_share(phases)
    assert place == 2
    assert share.value == pytest.approx(phases[:, 2].sum() / phases.sum())
    assert 0.7 < share.low < share.value < share.high < 0.9
    assert math.isnan(largest_share(np.zeros((4, 3)))[1].value)


def test_calibration_and_phases_are_means_of_parts():
    rows = np.stack([np.arange(20.0), 2 * np.arange(20.0)], 1)
    np.testing.assert_allclose(calibration(rows[::-1]), rows.reshape(10, 2, 2).mean(1))
    means = phase_means(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(means, [2.0, math.nan, 5.0])


# --- the log ---


def test_the_log_is_read_by_quarters(tmp_path):
    lines = ["env_step,update/constraint/multiplier,update/estep/slack"]
    lines += [f"{100 * i},{i}.0,{float(i > 50)}" for i in range(1, 101)]
    (tmp_path / "progress.csv").write_text("\n".join(lines) + "\n")
    numbers = training_numbers(tmp_path, ["cost"], caps=[100.0])
    np.testing.assert_allclose(numbers["rows"]["multiplier"]["quarters"], [13.0, 38.0, 63.0, 88.0])
    assert numbers["rows"]["multiplier"]["last_tenth"] == 95.5
    assert numbers["rows"]["E-step slack"]["quarters"] == [0.0, 0.0, 1.0, 1.0]
    assert numbers["at_cap"] == [pytest.approx(2 / 25)]
    assert set(numbers["rows"]) == {"multiplier", "E-step slack"}
    assert training_numbers(tmp_path / "nowhere", ["cost"], caps=[None]) is None
    (tmp_path / "progress.csv").write_text("env_step,update/estep/slack\n1,2,3\n")
    with pytest.raises(RunFolderError, match="damaged"):
        training_numbers(tmp_path, ["cost"], caps=[None])


def test_rows_of_several_costs_have_their_names(tmp_path):
    (tmp_path / "progress.csv").write_text(
        "env_step,update/constraint/multiplier_0,update/constraint/multiplier_vases\n1,2,3\n"
    )
    numbers = training_numbers(tmp_path, ["cost 0", "cost vases"], caps=[2.0, 4.0])
    assert {k: v["last_tenth"] for k, v in numbers["rows"].items()} == {
        "multiplier 0": 2.0,
        "multiplier vases": 3.0,
    }
    assert numbers["at_cap"] == [1.0, 0.0]


# --- the verdict ---


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def report(**changes):
    """Return a report in which no rule finds fault, with some parts replaced by path."""
    episodes = {
        "cost_mean": [20.0], "cost_interval": [(18.0, 22.0)],
    }  # fmt: skip
    signal = {
        "level": {"ratio": estimate(1.0, 0.9, 1.1), "rank_correlation": estimate(0.5, 0.4, 0.6)},
        "played_slope": estimate(1.0, 0.7, 1.3),
        "spread": {"over_actions": 1.0, "over_states": 2.0, "relative": 0.5},
        "order": {
            "rank_correlation": estimate(0.5, 0.4, 0.6), "slope": estimate(1.0, 0.8, 1.2), "states": 40,
            "telling_states": 40, "predicted_deviation": 1.0,
        },
    }  # fmt: skip
    base = {
        "cost_names": ["cost"],
        "cost_limit": [25.0],
        "constraint": [{"uses_threshold": False, "multiplier_cap": 10.0}],
        "signals": {"reward": signal, "cost": signal},
        "episodes": {
            "stochastic": episodes,
            "deterministic": episodes,
            "dearest_phase": [{"phase": 2, "share": estimate(0.6, 0.3, 0.9)}],
            "difference": {"mean": [0.0, 0.0], "interval": [(-1.0, 1.0), (-1.0, 1.0)]},
        },
        "training": {
            "rows": {
                "multiplier": {"quarters": [1.0] * 4},
                "cost of training episodes": {"quarters": [30.0] * 4},
                "E-step slack": {"quarters": [0.4] * 4},
                "E-step infeasible": {"quarters": [0.1] * 4},
                "step recovery": {"quarters": [0.1] * 4},
            },
            "at_cap": [0.0],
        },
        "buffer": {"cost": {"own": 1.0, "buffer": 0.9}},
        "actions": {"at_edge": [0.1, 0.2]},
    }
    changed = json.loads(json.dumps(base))
    for path, value in changes.items():
        *keys, last = path.split("__")
        part = changed
        for key in keys:
            part = part[int(key)] if isinstance(part, list) else part[key]
        part[int(last) if isinstance(part, list) else last] = value
    return changed


def texts(**changes):
    return [x["text"] for x in findings(report(**changes))]


def test_a_sound_policy_has_three_findings():
    within, level, order = texts()
    assert within == "The cost is 20.0 [18.0, 22.0] per deterministic episode, within the limit of 25."
    assert level.endswith("1.00 [0.90, 1.10] of the realised discounted cost: its level is right.")
    assert (
        order == "The critic of the cost ranks actions: slope 1.00 [0.80, 1.20] over "
        "replayed actions, rank correlation 0.50 [0.40, 0.60] in replays."
    )


LEVEL, ORDER = "signals__cost__level__ratio", "signals__cost__order"
UNRANKED = {
    f"{ORDER}__rank_correlation": estimate(0.1, -0.1, 0.2),
    "signals__cost__played_slope": estimate(0.1, -1.0, 1.2),
}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"episodes__deterministic__cost_interval": [(26.0, 40.0)]}, "above the limit of 25"),
        ({"episodes__deterministic__cost_interval": [(18.0, 40.0)]}, "does not tell whether it keeps"),
        (
            {"episodes__difference": {"mean": [0.0, 9.0], "interval": [(-1.0, 1.0), (5.0, 13.0)]}},
            "Sampled actions cost more",
        ),
        (
            {"episodes__dearest_phase": [{"phase": 5, "share": estimate(0.9, 0.8, 1.0)}]},
            "Phase 5 of 5 has 0.90 [0.80, 1.00] of the cost",
        ),
        ({LEVEL: estimate(0.5, 0.4, 0.6)}, "too low; the constraint's level comes from measured costs"),
        ({LEVEL: estimate(1.5, 1.4, 1.6)}, "too high; the constraint's level comes from measured costs"),
        (
            {LEVEL: estimate(0.5, 0.4, 0.6), "constraint__0__uses_threshold": True},
            "0.50 [0.40, 0.60] of the realised discounted cost: the constraint is looser than it reads.",
        ),
        (
            {LEVEL: estimate(1.5, 1.4, 1.6), "constraint__0__uses_threshold": True},
            "the constraint is stricter than it reads",
        ),
        ({LEVEL: estimate(0.8, 0.6, 1.1)}, "more episodes are needed"),
        ({"signals__cost__level__rank_correlation": estimate(0.1, -0.1, 0.2)}, "dear states from cheap ones"),
        ({"signals__cost__spread__relative": 0.02}, "nearly the same for all actions"),
        ({f"{ORDER}__slope": estimate(0.2, 0.1, 0.3)}, "larger than the realised ones"),
        ({f"{ORDER}__slope": estimate(3.0, 2.8, 3.2)}, "smaller than the realised ones"),
        ({"signals__cost__played_slope": estimate(0.9, 0.8, 1.0)}, "slope 0.90 [0.80, 1.00] over played"),
        ({ORDER: None}, "ranks actions: slope 1.00 [0.70, 1.30] over played actions."),
        ({**UNRANKED, f"{ORDER}__slope": estimate(0.1, -0.1, 0.2)}, "does not rank actions: slope 0.10"),
        ({**UNRANKED, f"{ORDER}__slope": estimate(0.4, -0.1, 0.8)}, "The data do not tell whether"),
        ({"signals__cost__spread__over_actions": 0.0}, "does not rank actions: all have the same value"),
        ({"training__at_cap__0": 0.9}, "at its cap of 10 in 90% of the last quarter"),
        ({"training__rows__multiplier__quarters__3": 0.0}, "the constraint never engages"),
        ({"training__rows__E-step infeasible__quarters__3": 0.8}, "80% of the updates of the last quarter"),
        ({"training__rows__step recovery__quarters__3": 0.8}, '"step recovery"'),
        (
            {
                "training__rows__E-step slack__quarters__3": 0.8,
                "episodes__stochastic__cost_mean__0": 30.0,
            },
            "in which no limit matters",
        ),
        ({"buffer__cost__own": 1.5}, "own states are dearer than those of the replay buffer"),
        ({"buffer__cost__own": 0.5}, "own states are cheaper"),
        ({"actions__at_edge": [0.7, 0.8]}, "in dimensions 0, 1 (70%, 80%)"),
    ],
)  # fmt: skip
def test_every_rule_speaks_when_its_threshold_is_passed(changes, text):
    assert not any(text in x for x in texts())
    assert any(text in x for x in texts(**changes)), texts(**changes)


def test_without_critic_log_or_buffer_the_limit_is_judged():
    sentences = texts(signals={}, training=None, buffer=None, constraint=[])
    assert len(sentences) == 1
    assert texts(signals={}, training=None, buffer=None, constraint=[], cost_limit=[math.inf]) == []
