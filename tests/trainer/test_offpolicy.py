"""The off-policy trainer meets its budget, logs, selects and repeats itself; evaluation plays given seeds."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.env import DummyVectorEnv
from toys.envs import LineEnv
from toys.policies import T, build
from toys.recorder import Recorder

from fsrl_ext.data import CostCollector, CostCollectStats, CostVectorReplayBuffer
from fsrl_ext.errors import NonFiniteError
from fsrl_ext.trainer import CostOffpolicyTrainer, evaluate_policy
from fsrl_ext.trainer.curves import training_curves


def policy_for(limit=5.0):
    return build("cvpo", cost_limit=limit, hidden=(16,), initial_std=0.6)


def collector(policy, num_envs=3, **kwargs):
    envs = [lambda: gym.wrappers.TimeLimit(LineEnv(**kwargs), T)] * num_envs
    return CostCollector(policy, DummyVectorEnv(envs), CostVectorReplayBuffer(20_000, num_envs))


def trainer_for(policy, train=None, **kwargs):
    settings = {
        "max_epoch": 4,
        "step_per_epoch": 100,
        "step_per_collect": 45,
        "update_per_step": 0.1,
        "batch_size": 32,
        "train_seeds": range(3),
        "show_progress": False,
    }
    return CostOffpolicyTrainer(
        policy=policy,
        train_collector=train or collector(policy),
        test_collector=collector(policy, 2),
        **(settings | kwargs),
    )


def test_budget_is_met_to_within_a_vector_step():
    logger = Recorder()
    trainer = trainer_for(policy_for(), logger=logger)
    trainer.run()
    assert trainer.env_step == trainer.step_budget == 4 * 102  # 102 is the next multiple of 3 environments.
    assert trainer._gradient_step == int(0.1 * 408)
    assert logger.steps("test") == [102, 204, 306, 408]
    assert logger.steps("update") == [45, 90, 102, 147, 192, 204, 249, 294, 306, 351, 396, 408]


def test_warmup_acts_at_random_without_updates_and_counts():
    logger = Recorder()
    policy = policy_for()
    with torch.no_grad():  # The actor always takes the largest action.
        policy.actor.head.bias[1:].fill_(-20.0)
        policy.actor.head.bias[:1].fill_(20.0)
    trainer = trainer_for(policy, logger=logger, warmup_steps=90)
    trainer.run()
    assert trainer.env_step == 408
    assert logger.steps("update")[0] == 102
    actions = trainer.train_collector.buffer.act
    first = actions[trainer.train_collector.buffer._offset[0] :][:30]
    assert first.std() > 0.3
    assert actions[30:130].min() > 0.9


def test_losses_are_means_over_the_cycle():
    policy, seen = policy_for(), []
    update = policy.update

    def spy(*args, **kwargs):
        stats = update(*args, **kwargs)
        seen.append(stats.metrics["loss/actor"])
        return stats

    policy.update = spy
    logger = Recorder()
    trainer_for(policy, logger=logger, max_epoch=1, step_per_collect=102).run()
    (row,) = [data for scope, _, data in logger.rows if scope == "update"]
    assert len(seen) == 10
    assert row["loss/actor"] == pytest.approx(np.mean(seen))


def test_best_policy_is_the_best_feasible_one():
    """The saved step is the one that the rule picks from the curve."""
    policy, saved, curve = policy_for(), [], []
    trainer = trainer_for(
        policy,
        max_epoch=12,
        update_per_step=0.5,
        save_best_fn=lambda _: saved.append(trainer.env_step),
        on_selection=curve.append,
    )
    trainer.run()
    assert [e.env_step for e in curve] == [102 * i for i in range(1, 13)]
    feasible = [e for e in curve if e.feasible]
    if feasible:
        expected = max(feasible, key=lambda e: e.return_mean)
    else:
        expected = min(curve, key=lambda e: e.violation)
    assert trainer.best is expected
    assert saved[-1] == expected.env_step


def test_share_above_limit_counts_training_episodes():
    trainer = trainer_for(policy_for(limit=0.0))
    trainer.run()
    assert trainer.env_episode == 3 * (136 // T)
    assert trainer.share_above_limit == 1.0
    trainer = trainer_for(policy_for(limit=20.0))
    trainer.run()
    assert trainer.share_above_limit == 0.0


def test_each_cycle_logs_how_far_its_episodes_were_above_the_limits():
    costs = np.array([[3.0, 1.0], [9.0, 2.0], [6.0, 7.0]])
    stats = CostCollectStats(costs=costs)
    assert training_curves(stats, (5.0, np.inf))["violation"] == {0: 4.0 + 1.0, 1: 0.0}


def test_same_seed_same_run_and_testing_changes_nothing():
    def run(selection_episodes):
        policy = policy_for()
        torch.manual_seed(1)
        trainer_for(policy, selection_seeds=range(100, 100 + selection_episodes)).run()
        return torch.nn.utils.parameters_to_vector(policy.actor.parameters())

    first = run(4)
    assert torch.equal(first, run(4))
    assert torch.equal(first, run(8))


def test_nan_from_the_environment_stops_with_the_step_named():
    policy = policy_for()
    trainer = trainer_for(policy, train=collector(policy, nan_at=40))
    with pytest.raises(NonFiniteError, match=r"environment step 102"):
        trainer.run()
    assert np.isfinite(trainer.train_collector.buffer.rew[: 3 * 39]).all()


def test_evaluation_plays_the_seeds_it_is_given():
    """Each episode equals the one that a bare loop plays from the same seed; groups do not matter."""
    policy = policy_for()
    seeds = [11, 12, 13, 14, 15, 16]
    three = evaluate_policy(collector(policy, 3), seeds, cost_limit=(5.0,))
    expected = []
    for seed in seeds:
        env = gym.wrappers.TimeLimit(LineEnv(), T)
        obs, _ = env.reset(seed=seed)
        total, done = np.zeros(2), False
        while not done:
            obs, reward, terminated, truncated, info = env.step(policy.compute_action(obs))
            total += reward, info["cost"]
            done = terminated or truncated
        expected.append(total)
    with pytest.raises(ValueError, match="multiple of the 3 environments, got 5"):
        evaluate_policy(collector(policy, 3), seeds[:5], cost_limit=(5.0,))
    np.testing.assert_allclose(three.returns, np.array(expected)[:, 0], rtol=1e-4)
    np.testing.assert_allclose(three.costs[:, 0], np.array(expected)[:, 1], rtol=1e-4)
    assert not policy.is_within_training_step


def test_stochastic_evaluation_samples_and_repeats():
    policy = policy_for()
    runs = [
        evaluate_policy(collector(policy), range(3), cost_limit=(5.0,), stochastic=True) for _ in range(2)
    ]
    deterministic = evaluate_policy(collector(policy), range(3), cost_limit=(5.0,))
    np.testing.assert_array_equal(runs[0].returns, runs[1].returns)
    assert not np.allclose(runs[0].returns, deterministic.returns)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"max_epoch": 0}, "max_epoch must be a whole number >= 1, got 0"),
        ({"batch_size": -1}, "batch_size must be a whole number >= 1, got -1"),
        ({"update_per_step": 0.0}, "update_per_step must be > 0, got 0.0"),
    ],
)
def test_bad_settings_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        trainer_for(policy_for(), **kwargs)
