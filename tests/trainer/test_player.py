"""Test episodes are played beside the learner or in turn, and end early where the verdict is clear."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from toys.envs import LineEnv
from toys.policies import build_cvpo
from toys.recorder import Recorder
from toys.resources import held
from toys.training import collector_for

from fsrl_ext.data import ProcessEndedError
from fsrl_ext.trainer import CostOffpolicyTrainer, evaluate_policy
from fsrl_ext.trainer.player import EpisodePlayer, parameters_of

SEEDS = range(100, 104)
LIMIT = (5.0,)
make_tests = functools.partial(collector_for, env=LineEnv, num_envs=2, size=100)


def failing_tests(policy):
    raise ZeroDivisionError("no environments")


@pytest.fixture
def player():
    made = []

    def make(policy, make_collector=make_tests, cores=1):
        made.append(EpisodePlayer(policy, make_collector, cores=cores))
        return made[-1]

    yield make
    for each in made:
        each.close()


def same(one, other):
    return one.summary() == other.summary() and np.array_equal(one.returns, other.returns)


def test_plays_the_policy_of_the_start_in_turn_and_in_a_process(player):
    policy = build_cvpo()
    expected = evaluate_policy(make_tests(policy), SEEDS, cost_limit=LIMIT, env_step=7)
    random = torch.get_rng_state()
    players = [player(policy, cores=cores) for cores in (1, 2)]
    parameters = parameters_of(policy)
    with torch.no_grad():
        for x in policy.parameters():
            x.add_(1.0)
    for each in players:
        each.start(parameters, SEEDS, cost_limit=LIMIT, env_step=7)
        assert each.busy
    with pytest.raises(RuntimeError, match="call finish"):
        players[0].start(parameters, SEEDS, cost_limit=LIMIT, env_step=7)
    for each in players:
        assert same(each.finish(), expected)
        assert not each.busy
    with pytest.raises(RuntimeError, match="call start"):
        players[0].finish()
    assert torch.equal(torch.get_rng_state(), random)
    assert not same(evaluate_policy(make_tests(policy), SEEDS, cost_limit=LIMIT, env_step=7), expected)


def test_what_fails_is_raised_when_the_result_is_asked_for(player):
    policy = build_cvpo()
    before = None
    for cores in (1, 2):
        each = player(policy, failing_tests, cores=cores)
        each.start(parameters_of(policy), SEEDS, cost_limit=LIMIT, env_step=0)
        with pytest.raises(ZeroDivisionError, match="no environments"):
            each.finish()
        each.start(parameters_of(policy), SEEDS, cost_limit=LIMIT, env_step=0)
        each.close()  # while it is busy
        before = before or held()
        assert held()["children"] == 0
        with pytest.raises(ProcessEndedError, match="the player of the episodes is closed"):
            each.finish()


def train(tests, policy, **settings):
    """Train for five epochs and note the moments of candidates and verdicts."""
    recorder, moments = Recorder(), []
    trainer = CostOffpolicyTrainer(
        policy=policy,
        train_collector=collector_for(policy, env=LineEnv, size=1000),
        test_collector=tests,
        max_epoch=5,
        step_per_epoch=40,
        step_per_collect=20,
        update_per_step=0.1,
        batch_size=16,
        show_progress=False,
        train_seeds=range(4),
        selection_seeds=SEEDS,
        logger=recorder,
        on_candidate=lambda: moments.append(("candidate", trainer.env_step)),
        on_selection=lambda x: moments.append(("verdict", trainer.env_step, x.env_step)),
        save_best_fn=lambda _: moments.append(("best", trainer.env_step)),
        **settings,
    )
    torch.manual_seed(0)
    trainer.run()
    return trainer, recorder, [x for x in moments if x[0] != "best"], [x for x in moments if x[0] == "best"]


def test_verdicts_come_at_the_next_selection_and_select_the_same(player):
    policy = build_cvpo()
    start = {
        key: value.clone() if isinstance(value, torch.Tensor) else value
        for key, value in policy.state_dict().items()
    }
    expected, logged, _, _ = train(make_tests(policy), policy)
    policy = build_cvpo()
    policy.load_state_dict(start)
    trainer, recorder, moments, _ = train(player(policy), policy)
    steps = [40, 80, 120, 160, 200]
    assert moments == [
        ("candidate", 40),
        *(
            x
            for before, step in itertools.pairwise(steps)
            for x in (("verdict", step, before), ("candidate", step))
        ),
        ("verdict", 200, 200),
    ]
    assert same(trainer.best, expected.best)
    assert trainer.best_epoch == expected.best_epoch
    tests = [[row for row in x.rows if row[0] == "test"] for x in (recorder, logged)]
    assert tests[0] == tests[1]


def test_a_verdict_can_stop_a_training(player):
    policy = build_cvpo()
    trainer, _, moments, _ = train(player(policy), policy, stop_fn=lambda best: True)
    assert moments == [("candidate", 40), ("verdict", 80, 40)]
    assert trainer.env_step == 80


def test_selections_end_early_against_a_clearly_better_policy():
    policy = build_cvpo()
    all_seeds = range(100, 110)
    play = functools.partial(evaluate_policy, make_tests(policy), all_seeds, cost_limit=(np.inf,))
    whole = play()
    assert len(whole.returns) == 10
    better = dataclasses.replace(whole, returns=whole.returns + 1000.0)
    early = play(best=better, min_episodes=3)
    assert len(early.returns) == len(early.seeds) == 4  # two groups of two environments
    np.testing.assert_array_equal(early.returns, whole.returns[:4])
    for settings in ({"best": better}, {"min_episodes": 3}, {"best": whole, "min_episodes": 3}):
        assert same(play(**settings), whole)
