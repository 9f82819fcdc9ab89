"""The toy problems' optima against optimisers and simulations that do not know them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toys.cmdps import (
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
    for env in (TwoStateEnv(), LineEnv()):
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        assert env.observation_space.contains(env.step(env.action_space.sample())[0])
