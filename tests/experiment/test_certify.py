"""Verdicts on the limits of a saved policy, held against evaluations of the same episodes."""

import json
import math

import numpy as np
import pytest
from toys.settings import small_config

from fsrl_ext import cli
from fsrl_ext.experiment import certify, evaluate, run
from fsrl_ext.report.betting import log_capital_above, log_capital_below

HORIZON = 20


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    config = small_config("cvpo", steps=160, selections=1)
    return run(config, out=tmp_path_factory.mktemp("runs"), show_progress=False).folder


@pytest.fixture(scope="module")
def costs(saved):
    """The costs ``[200]`` of stochastic episodes, about 10 each."""
    return evaluate(saved, episodes=200, stochastic=True, seed=3).costs[:, 0]


def command(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_toy_is_what_the_tests_assume(costs):
    assert 1 < costs.mean() < HORIZON - 1
    assert costs.std() > 0.1


@pytest.mark.parametrize(("share", "verdict"), [(1.2, "within"), (0.8, "above")])
def test_the_first_group_that_decides_is_the_last(saved, costs, share, verdict):
    limit = float(share * costs.mean())
    certificate = certify(saved, cost_limit=limit, stochastic=True, seed=3)
    assert certificate.verdict == verdict
    played = certificate.evaluation.costs[:, 0]
    capital = log_capital_below if verdict == "within" else log_capital_above
    reached = [
        capital(played[:n] / HORIZON, limit / HORIZON) >= math.log(20) for n in range(4, len(played) + 1, 4)
    ]
    assert reached == [False] * (len(reached) - 1) + [True]
    assert certificate.evaluation.seeds == tuple(range(3, 3 + len(played)))
    low, high = certificate.cost_bounds[0]
    assert low < played.mean() < high
    assert high <= limit + 1e-6 if verdict == "within" else low >= limit - 1e-6


def test_deterministic_episodes_are_those_of_an_evaluation(saved):
    certificate = certify(saved, cost_limit=HORIZON - 0.5)
    episodes = len(certificate.evaluation.returns)
    same = evaluate(saved, episodes=episodes, cost_limit=HORIZON - 0.5)
    np.testing.assert_array_equal(certificate.evaluation.costs, same.costs)
    np.testing.assert_array_equal(certificate.evaluation.returns, same.returns)
    assert certificate.evaluation.seeds == same.seeds


def test_undecided_at_the_limit_of_episodes(saved, costs):
    certificate = certify(saved, cost_limit=float(costs.mean()), stochastic=True, max_episodes=11, seed=3)
    assert certificate.verdict == "undecided"
    assert len(certificate.evaluation.returns) == 8  # whole groups of 4


def test_a_larger_bound_and_a_higher_confidence_need_more_episodes(saved, costs):
    def episodes(**settings):
        limit = float(1.3 * costs.mean())
        return len(certify(saved, cost_limit=limit, stochastic=True, seed=3, **settings).evaluation.returns)

    assert episodes() < episodes(confidence=0.999)
    assert episodes() < episodes(cost_bound=60.0)


def test_the_share_of_episodes_above_the_limit(saved, costs):
    limit = float(np.quantile(costs, 0.7))  # three of ten episodes are above
    many = certify(saved, cost_limit=limit, share_limit=0.1, stochastic=True, seed=3)
    assert many.share_verdict == "above"
    few = certify(saved, cost_limit=limit, share_limit=0.6, stochastic=True, seed=3)
    assert few.share_verdict == "within"
    low, high = few.share_bounds
    assert low < few.evaluation.share_above_limit < high <= 0.6 + 1e-6
    assert certify(saved, cost_limit=limit, stochastic=True).share_verdict is None


def test_every_cost_has_to_be_within(tmp_path):
    config = small_config("cvpo", "ToyLineTwoCosts-v0", cost_limit=(5.0, 2.0), steps=160, selections=1)
    folder = run(config, out=tmp_path, show_progress=False).folder
    mean = evaluate(folder, episodes=40, stochastic=True).cost_mean
    near, far = HORIZON - 0.1, float("inf")
    assert certify(folder, cost_limit=(near, near), stochastic=True).verdict == "within"
    assert certify(folder, cost_limit=(near, far), stochastic=True).verdict == "within"
    assert certify(folder, cost_limit=(near, float(0.5 * mean[1])), stochastic=True).verdict == "above"


def test_limits_at_the_ends_of_the_range(saved):
    assert certify(saved, cost_limit=HORIZON).verdict == "within"
    assert certify(saved, cost_limit=0.0, stochastic=True).verdict == "above"


def test_bad_input_is_a_clear_error(saved):
    for settings, message in (
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\), got 1"),
        ({"share_limit": 0.0}, r"share_limit must be in \(0, 1\), got 0"),
        ({"max_episodes": 3}, "max_episodes must be >= 4, which are played side by side, got 3"),
        ({"cost_bound": (20.0, 20.0)}, "cost_bound must be one finite number > 0, or 1, one per cost"),
        ({"cost_bound": 0.0}, "cost_bound must be one finite number > 0"),
        ({"cost_bound": 1e-3, "stochastic": True}, "cost_bound must be a bound of every episode's cost"),
        ({"cost_limit": math.inf}, "cost_limit must be finite for at least one cost"),
    ):
        with pytest.raises(ValueError, match=message):
            certify(saved, **settings)


def test_command_line(saved, tmp_path, capsys):
    file = tmp_path / "numbers.json"
    options = ["--cost-limit", "19", "--max-share", "0.5", "--stochastic", "--seed", "3", "--json", file]
    code, out, _ = command(capsys, "evaluate", saved, "--certify", "0.95", *options)
    assert code == 0
    report = json.loads(file.read_text())
    certificate = certify(saved, cost_limit=19.0, share_limit=0.5, stochastic=True, seed=3)
    assert report["verdict"] == certificate.verdict == "within"
    assert report["costs"] == certificate.evaluation.costs.tolist()
    assert report["anytime_share_bounds"] == list(certificate.share_bounds)
    assert f"{report['episodes']} stochastic episodes" in out
    assert "if no episode\ncan cost more than 20, one for each step" in out
    assert out.count("yes") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-share", "0.1"], "--max-share is about --certify"),
        (["--certify", "0.95", "--episodes", "9"], "--episodes does not go with --certify"),
        (["--certify", "0.95", "--suite", "inside"], "--suite does not go with --certify"),
        (["--certify", "95"], "confidence must be in (0, 1), got 95"),
        (["--certify", "0.95", "--cost-bound", "much"], "cost_bound must be"),
    ],
)
def test_options_that_do_not_fit(saved, capsys, options, message):
    code, _, err = command(capsys, "evaluate", saved, *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
