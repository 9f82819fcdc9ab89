"""The task with discrete actions: its linear program against policies that are valued by hand and by play."""

import numpy as np
import pytest
from scipy.optimize import linprog
from toys.simulators import assert_passes_checker, rollout

from fsrl_ext.env import can_terminate, make, time_limit
from fsrl_ext.env.discrete_optimum import DISCRETE_TASK, DiscreteOptimumEnv

SLOW, NORMAL, FAST = np.eye(3)


def always(*speeds):
    """Return the policy ``[8, 3]`` with a speed for a sound and one for a damaged vehicle."""
    return np.tile(np.stack(speeds), (4, 1))


@pytest.fixture(scope="module")
def env():
    return DiscreteOptimumEnv()


def test_values_of_constant_speeds_are_those_of_a_calculation_by_hand(env):
    assert env.value(always(SLOW, SLOW)) == pytest.approx((40 * 0.1, 0.0))
    sound = 0.7 ** np.arange(4)
    per_delivery = np.array([(sound + 0.5 * (1 - sound)).sum(), 0.4 * (sound + 3 * (1 - sound)).sum()])
    assert env.value(always(FAST, FAST)) == pytest.approx(tuple(10 * per_delivery))


def test_the_value_of_a_policy_is_the_mean_of_what_it_plays(env):
    rng = np.random.default_rng(0)
    policy = rng.dirichlet(np.ones(3), 8)
    played = []
    for seed in range(400):
        obs, total, over = env.reset(seed=seed)[0], np.zeros(2), False
        while not over:
            action = rng.choice(3, p=policy[obs.argmax()])
            obs, reward, _, over, info = env.step(action)
            total += reward, info["cost"]
        played.append(total)
    error = np.std(played, axis=0) / 20
    assert np.all(np.abs(np.mean(played, axis=0) - env.value(policy)) < 4 * error)


@pytest.mark.parametrize("limit", [0.0, 1.0, 3.0, 8.0, 100.0])
def test_the_optimum_is_reached_by_a_policy_that_knows_the_state_alone(env, limit):
    policy, best = env.optimum(limit)
    np.testing.assert_allclose(policy.sum(1), 1.0)
    earned, spent = env.value(policy)
    assert earned == pytest.approx(best, rel=1e-9)
    assert spent <= limit + 1e-9
    if limit < 20:
        assert spent == pytest.approx(limit, abs=1e-9)


def test_the_optimum_is_that_of_one_delivery_ten_times(env):
    """Over the visits of one delivery, whose legs are the steps, the program has 24 variables."""
    flows = np.kron(np.eye(8), np.ones(3)) - np.where(
        np.arange(8)[:, None] == 0, 0.0, env.moves.reshape(24, 8).T
    )
    solution = linprog(
        -env.rewards.ravel(), A_ub=env.costs.reshape(1, -1), b_ub=[0.3], A_eq=flows, b_eq=env.start
    )
    assert env.optimum(3.0)[1] == pytest.approx(-10 * solution.fun, rel=1e-9)
    mixing = (solution.x.reshape(8, 3) > 1e-9).sum(1) > 1
    assert mixing.sum() == 1  # one constraint, one state in which two speeds are mixed


def test_no_random_policy_within_the_limit_earns_more(env):
    rng, best = np.random.default_rng(1), env.optimum(3.0)[1]
    shares = rng.random(300)[:, None, None]
    policies = (1 - shares) * SLOW + shares * rng.dirichlet([0.3] * 3, (300, 8))
    values = [env.value(policy) for policy in policies]
    affordable = [earned for earned, spent in values if spent <= 3.0]
    assert len(affordable) > 20
    assert max(affordable) < best


def test_the_default_limit_binds(env):
    free, bound = env.optimum(1e3), env.optimum(3.0)
    assert env.value(free[0])[1] > 6.0
    assert bound[1] < 0.9 * free[1]


def test_the_task_keeps_the_contract():
    env = make(DISCRETE_TASK)
    assert_passes_checker(env)
    for a, b in zip(rollout(env, seed=3), rollout(make(DISCRETE_TASK), seed=3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (time_limit(env), can_terminate(env)) == (40, False)


def test_arguments_that_cannot_be_used_are_named():
    with pytest.raises(ValueError, match="max_episode_steps must be a multiple of 4, got 6"):
        make(DISCRETE_TASK, max_episode_steps=6)
    with pytest.raises(ValueError, match="cost_limit must be >= 0, got -1"):
        DiscreteOptimumEnv().optimum(-1)
