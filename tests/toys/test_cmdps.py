"""The toy problems' optima against optimisers and simulations that do not know them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from toys.cmdps import (
    ThrottleEnv,
    TwoStateEnv,
    trap_cost,
    trap_episodes,
    two_state_episode_cost,
    two_state_optimum,
    two_state_values,
)
from toys.envs import LineEnv


def play(env, throttle):
    """Return reward and cost ``[T, 2]`` of the steps in which ``x = (1 + a) / 2`` is given."""
    env.reset(seed=0)
    steps = [env.step(np.array([2 * x - 1])) for x in throttle]
    return np.array([[reward, info["cost"]] for _, reward, _, _, info in steps])


def best_throttle(env, cost_limit):
    """Maximise an episode's return over all sequences of actions within the limit, by SLSQP."""
    horizon = env.HORIZON
    result = minimize(
        lambda x: -play(env, x)[:, 0].sum(),
        np.full(horizon, 0.1),
        bounds=[(0, 1)] * horizon,
        constraints={"type": "ineq", "fun": lambda x: cost_limit - play(env, x)[:, 1].sum()},
        options={"maxiter": 200, "ftol": 1e-10},
    )
    assert result.success, result.message
    return result.x


@pytest.mark.parametrize(
    ("settings", "cost_limit"),
    [
        ({}, 4.0),
        ({}, 0.0),
        ({}, 12.0),
        ({"window": (5, 15)}, 4.0),
        ({"window": (30, 40), "reward_scale": 3.0, "cost_scale": 0.5}, 1.0),
    ],
)
def test_no_sequence_of_actions_beats_the_throttles_optimum(settings, cost_limit):
    env = ThrottleEnv(**settings)
    inside, best = env.optimum(cost_limit)
    first, end = env.window
    expected = np.ones(env.HORIZON)
    expected[first:end] = inside
    np.testing.assert_allclose(best_throttle(env, cost_limit), expected, atol=1e-3)
    played = play(env, expected).sum(0)
    assert played[0] == pytest.approx(best, rel=1e-12)
    assert played[1] == pytest.approx(min(cost_limit, env.cost_scale * env.FULL_COST), rel=1e-12)


def test_the_throttle_costs_a_quarter_in_each_of_40_steps_and_shows_its_window():
    env = ThrottleEnv()
    np.testing.assert_allclose(play(env, np.full(40, 0.6)), [[1 - 0.4**2, 0.15]] * 40)
    env = ThrottleEnv(window=(2, 4))
    shown = [env.reset()[0][0]] + [env.step(np.ones(1))[0][0] for _ in range(5)]
    assert shown == [0, 0, 1, 1, 0, 0]
    env.reset()
    assert [env.step(np.ones(1))[3] for _ in range(40)] == [False] * 39 + [True]


def test_the_lines_best_action_spends_the_limit():
    horizon, limit = 20, 5.0
    a = 2 * limit / horizon - 1
    rewards, costs = play(LineEnv(), np.full(horizon, (1 + a) / 2)).T
    assert costs.sum() == pytest.approx(limit)
    # Reward and cost are linear in the action, so that no other sequence of this cost earns more.
    other = play(LineEnv(), np.random.default_rng(0).dirichlet(np.ones(horizon)) * limit)
    assert other[:, 1].sum() == pytest.approx(limit)
    assert other[:, 0].sum() == pytest.approx(rewards.sum())


def test_two_state_values_are_those_of_a_simulation():
    x, gamma, steps = np.array([0.3, 0.7]), 0.9, 40_000
    env = TwoStateEnv()
    obs, _ = env.reset(seed=0)
    signals, states = np.empty((steps, 2)), np.empty(steps, int)
    for t in range(steps):
        states[t] = obs.argmax()
        obs, signals[t, 0], _, _, info = env.step(np.array([2 * x[states[t]] - 1]))
        signals[t, 1] = info["cost"]
    *values, mean = two_state_values(x, gamma)
    np.testing.assert_allclose(signals.mean(0), mean, rtol=0.02)
    discounted = np.zeros((steps + 1, 2))
    for t in reversed(range(steps)):
        discounted[t] = signals[t] + gamma * discounted[t + 1]
    for state in (0, 1):
        simulated = discounted[:-200][states[: steps - 199] == state].mean(0)
        np.testing.assert_allclose(simulated, [value[state] for value in values], rtol=0.02)


@pytest.mark.parametrize("cost_per_step", [0.05, 0.25])
def test_no_policy_of_a_grid_beats_the_two_state_optimum(cost_per_step):
    """At the price that the optimum implies, its discounted Lagrangian is the largest in either state."""
    gamma = 0.9
    best = two_state_optimum(cost_per_step, gamma)
    assert two_state_values(best, gamma)[2][1] == pytest.approx(cost_per_step, rel=0.01)
    grid = np.linspace(0, 1, 101)
    values = {(a, b): two_state_values(np.array([a, b]), gamma) for a in grid for b in grid}
    # In state 1 the action moves nothing: 2 x - price x^2 is largest at x = 1 / price.
    price = 1 / best[1]
    reward, cost, _ = two_state_values(best, gamma)
    objective = reward - price * cost
    for reward, cost, _ in values.values():
        assert (reward - price * cost <= objective + 1e-3).all()


def test_the_exact_cost_of_a_two_state_episode_is_that_of_a_simulation():
    mean, std, steps, episodes = np.array([-0.4, 0.3]), np.array([0.5, 0.7]), 20, 2_000
    env, rng, cost = TwoStateEnv(), np.random.default_rng(0), 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=0 if episode == 0 else None)
        for _ in range(steps):
            state = obs.argmax()
            action = np.clip(mean[state] + std[state] * rng.standard_normal(1), -1, 1)
            obs, *_, info = env.step(action)
            cost += info["cost"] / episodes
    assert two_state_episode_cost(mean, std, steps) == pytest.approx(cost, rel=0.02)


@pytest.mark.parametrize("escape", [0.0, 0.05])
def test_the_exact_cost_of_the_trap_is_that_of_its_episodes(escape):
    torch.manual_seed(0)
    data = trap_episodes(0.3, escape, 20_000)
    assert (data.trapped & data.played).sum(0).double().mean() == pytest.approx(
        trap_cost(0.3, escape), rel=0.02
    )
    assert not data.terminated.any() or escape


def test_observations_lie_in_their_space():
    for env in (ThrottleEnv(), TwoStateEnv(), LineEnv()):
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        assert env.observation_space.contains(env.step(env.action_space.sample())[0])
