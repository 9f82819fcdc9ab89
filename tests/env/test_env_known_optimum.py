"""The tasks with a known optimum against searches that do not know it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from toys.simulators import assert_passes_checker, rollout

from fsrl_ext.env import KnownOptimumEnv, can_terminate, list_tasks, make, time_limit
from fsrl_ext.env.discrete_optimum import DISCRETE_TASK
from fsrl_ext.env.known_optimum import KNOWN_OPTIMUM_TASKS
from fsrl_ext.env.two_costs import TWO_COSTS_TASK

T = 40


def play(env, throttle):
    """Return reward and cost ``[T, 2]`` of the steps in which ``x = (1 + a) / 2`` is given."""
    env.reset(seed=0)
    steps = [env.step(np.array([2 * x - 1])) for x in throttle]
    return np.array([[reward, info["cost"]] for _, reward, _, _, info in steps])


def inside_and_outside(env, inside, outside):
    """Return the throttle ``[T]`` that is constant in the window and outside of it."""
    throttle = np.full(T, outside)
    throttle[slice(*env.unwrapped.window)] = inside
    return throttle


@pytest.mark.parametrize("task", KNOWN_OPTIMUM_TASKS)
def test_no_pair_of_throttles_beats_the_optimum(task):
    env = make(task)
    limit = 3.0 * env.unwrapped.cost_scale
    best_inside, best = env.unwrapped.optimum(limit)
    grid = np.linspace(0, 1, 21)
    played = {
        pair: play(env, inside_and_outside(env, *pair)).sum(0) for pair in itertools.product(grid, grid)
    }
    affordable = {pair: reward for pair, (reward, cost) in played.items() if cost <= limit * (1 + 1e-9)}
    inside, outside = max(affordable, key=affordable.get)
    assert inside == pytest.approx(best_inside)
    assert outside == 1 or env.unwrapped.window == (0, T)
    assert affordable[inside, outside] == pytest.approx(best, rel=1e-12)
    assert played[inside, outside][1] == pytest.approx(limit, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({}, 4.0),
        ({}, 0.0),
        ({}, 12.0),
        ({"window": (5, 15)}, 4.0),
        ({"window": (30, 40), "reward_scale": 3.0, "cost_scale": 0.5}, 1.0),
    ],
)
def test_no_sequence_of_throttles_beats_the_optimum(settings, limit):
    env = KnownOptimumEnv(**settings)
    inside, best = env.optimum(limit)
    result = minimize(
        lambda x: -play(env, x)[:, 0].sum(),
        np.full(T, 0.1),
        bounds=[(0, 1)] * T,
        constraints={"type": "ineq", "fun": lambda x: limit - play(env, x)[:, 1].sum()},
        options={"maxiter": 200, "ftol": 1e-10},
    )
    assert result.success, result.message
    expected = inside_and_outside(env, inside, 1.0)
    np.testing.assert_allclose(result.x, expected, atol=1e-3)
    reward, cost = play(env, expected).sum(0)
    assert reward == pytest.approx(best, rel=1e-12)
    assert cost == pytest.approx(min(limit, 10.0 * env.cost_scale), rel=1e-12)


def test_the_optimum_within_a_discounted_limit_spends_it():
    env = KnownOptimumEnv(window=(T // 2, T), reward_scale=2.0)
    inside, best = env.optimum(1.0, discount=0.95)
    assert env.optimum(1.0)[0] == pytest.approx(0.1)
    assert 0.2 < inside < 1.0
    reward, cost = play(env, inside_and_outside(env, inside, 1.0)).T
    assert reward.sum() == pytest.approx(best, rel=1e-12)
    assert 0.95 ** np.arange(T) @ cost == pytest.approx(1.0, rel=1e-12)
    assert env.optimum(1.0, discount=0.0)[0] == 1.0  # costs that come late then cost nothing
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 1.5"):
        env.optimum(1.0, discount=1.5)


def test_a_step_costs_a_quarter_of_its_throttle_where_all_steps_cost():
    np.testing.assert_allclose(play(KnownOptimumEnv(), np.full(T, 0.6)), [[1 - 0.4**2, 0.15]] * T)


def test_the_observation_has_what_the_arguments_ask_for():
    def seen(**settings):
        env = KnownOptimumEnv(window=(2, 4), **settings)
        return np.array([env.reset(seed=0)[0], *(env.step(np.ones(1))[0] for _ in range(5))])

    window = [0, 0, 1, 1, 0, 0]
    plain = seen()
    np.testing.assert_array_equal(plain.T, [[0] * 6, [0] * 6, window])
    np.testing.assert_allclose(seen(clock=True).T, [np.arange(6) / T, [0] * 6, window])
    clock, noise, inside = seen(noise=True, obs_scale=1000.0).T
    assert not clock.any()
    assert len(set(noise)) == 6
    assert 1 < np.abs(noise).max() <= 1000
    np.testing.assert_array_equal(inside, 1000 * np.array(window))


def test_episodes_are_truncated_and_tasks_are_listed():
    listed = {task.id: task for task in list_tasks() if task.suite == "known-optimum"}
    assert list(listed) == [*KNOWN_OPTIMUM_TASKS, TWO_COSTS_TASK, DISCRETE_TASK]
    for id, task in listed.items():
        env = make(id)
        env.reset(seed=0)
        ends = [env.step(env.action_space.sample())[2:4] for _ in range(T)]
        assert ends == [(False, False)] * (T - 1) + [(False, True)]
        assert (time_limit(env), can_terminate(env), task.installed) == (T, False, True)


def test_the_tasks_keep_the_contract():
    env = make("KnownOptimumNoise-v0")
    assert_passes_checker(env)
    for a, b in zip(rollout(env, seed=3), rollout(make("KnownOptimumNoise-v0"), seed=3), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": (3, 3)}, r"window must hold steps of 0 to 40, got \(3, 3\)"),
        ({"window": (0, 41)}, "window must hold"),
        ({"cost_scale": 0.0}, r"cost_scale must be > 0 and finite, got 0\.0"),
        ({"obs_scale": np.inf}, "obs_scale must be > 0 and finite, got inf"),
        ({"reward_scale": np.nan}, "reward_scale must be > 0 and finite, got nan"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make("KnownOptimum-v0", **settings)
    with pytest.raises(ValueError, match="cost_limit must be >= 0, got -1"):
        KnownOptimumEnv().optimum(-1)
