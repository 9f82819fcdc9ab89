"""Thresholds and n-step targets agree with sums written out."""

import itertools
import math

import numpy as np
import pytest
import torch

from fsrl_ext.functional.returns import (
    as_cost_limits,
    cost_threshold,
    discounted_steps,
    floored_deviation,
    integral_margin,
    nstep_targets,
    steps_before,
    weighted_advantages,
)


def test_paper_threshold_is_the_discounted_cost_of_an_even_episode():
    limit, horizon, gamma = 10.0, 300, 0.97
    discounted = sum(gamma**t * limit / horizon for t in range(horizon))
    got = cost_threshold(limit, max_episode_steps=horizon, gamma=gamma)
    assert got == pytest.approx(discounted, rel=1e-12)


def test_stationary_threshold_is_an_endless_even_cost():
    got = cost_threshold(10.0, max_episode_steps=300, gamma=0.99, unit="stationary")
    assert got == pytest.approx(10.0 / 300 / 0.01)
    paper = cost_threshold(10.0, max_episode_steps=300, gamma=0.99)
    assert paper / got == pytest.approx(1 - 0.99**300)


@pytest.mark.parametrize(("horizon", "gamma"), [(300, 0.97), (40, 0.99), (1, 0.5), (7, 0.0)])
def test_finite_threshold_is_the_mean_over_an_even_episode_that_ends(horizon, gamma):
    limit = 10.0
    values = [sum(gamma**k * limit / horizon for k in range(horizon - t)) for t in range(horizon)]
    got = cost_threshold(limit, max_episode_steps=horizon, gamma=gamma, unit="finite")
    assert got == pytest.approx(sum(values) / horizon, rel=1e-12)


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, 25.0), (1 - 1e-12, 25.0), (0.0, 0.025)])
def test_paper_threshold_at_the_ends_of_gamma(gamma, expected):
    got = cost_threshold(25.0, max_episode_steps=1000, gamma=gamma)
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("unit", ["paper", "stationary", "finite"])
def test_infinite_limit_stays_infinite(unit):
    got = cost_threshold(math.inf, max_episode_steps=10, gamma=0.9, unit=unit)
    assert got == math.inf


@pytest.mark.parametrize("unit", ["paper", "stationary", "finite"])
def test_an_even_cost_is_at_both_limits_or_at_none(unit):
    """Whichever unit the limit is in, an even cost that meets it has the same threshold."""
    horizon, gamma, cost = 40, 0.95, 0.3
    known = {"max_episode_steps": horizon, "gamma": gamma, "unit": unit}
    discounted = sum(gamma**t * cost for t in range(horizon))
    expected = cost_threshold(cost * horizon, **known)
    got = cost_threshold(discounted, **known, limit_unit="discounted")
    assert got == pytest.approx(expected, rel=1e-12)
    assert unit != "paper" or got == discounted


def test_without_a_discount_both_units_are_one():
    known = {"max_episode_steps": 40, "gamma": 1.0}
    assert cost_threshold(7.0, **known, limit_unit="discounted") == cost_threshold(7.0, **known) == 7.0
    with pytest.raises(ValueError, match=r"limit_unit must be .*, got 'discount'"):
        cost_threshold(7.0, **known, limit_unit="discount")


@pytest.mark.parametrize(("steps", "gamma"), [(300, 0.97), (1, 0.5), (7, 0.0), (0, 0.9), (9, 1.0)])
def test_discounted_steps_are_the_sum_of_the_discounts(steps, gamma):
    assert discounted_steps(steps, gamma) == pytest.approx(sum(gamma**t for t in range(steps)), rel=1e-12)


def test_steps_count_from_the_start_of_each_episode():
    """The first environment goes on with an episode of four steps, the third one begins anew."""
    starts = np.array([1, 0, 0, 1, 0, 1, 1, 0, 1, 0], dtype=bool)
    owners = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    steps = steps_before(starts, owners, np.array([4, 9, 0]))
    assert steps.tolist() == [4, 5, 6, 0, 1, 9, 0, 1, 0, 1]
    starts[[5, 8]] = False  # Data of another environment never go on with an episode.
    assert steps_before(starts, owners, np.array([4, 9, 0])).tolist() == steps.tolist()


# A problem with two states and two actions, by state and action: costs, and probabilities to go to state 1.
COST = torch.tensor([[0.0, 1.0], [3.0, 0.5]], dtype=torch.float64)
LEADS = torch.tensor([[0.25, 0.75], [0.5, 0.25]], dtype=torch.float64)
PROBLEM_STEPS, DISCOUNT = 3, 0.6


def exact_values(policy, discount):
    """Return Q of each step ``[3, 2, 2]`` and the cost of an episode from state 0, by dynamic programming.

    :param policy: ``[2]`` probability of action 1 in each state.
    """
    value, q = torch.zeros(2, dtype=torch.float64), []
    for _ in range(PROBLEM_STEPS):
        q.insert(0, COST + discount * (LEADS * value[1] + (1 - LEADS) * value[0]))
        value = (1 - policy) * q[0][:, 0] + policy * q[0][:, 1]
    return torch.stack(q), value[0]


def every_episode(policy):
    """Return states and actions ``[E, 3]`` in which every episode is as often as its probability says."""
    states, actions = [], []
    for a0, s1, a1, s2, a2 in itertools.product((0, 1), repeat=5):
        s, a = (0, s1, s2), (a0, a1, a2)
        probability = 4.0**5
        for t in range(PROBLEM_STEPS):
            probability *= policy[s[t]] if a[t] else 1 - policy[s[t]]
            if t:
                before = LEADS[s[t - 1], a[t - 1]]
                probability *= before if s[t] else 1 - before
        assert float(probability) == int(probability)
        states += [s] * int(probability)
        actions += [a] * int(probability)
    return torch.tensor(states), torch.tensor(actions)


def test_weighted_advantages_have_the_gradient_of_the_discounted_cost():
    old = torch.tensor([0.5, 0.25], dtype=torch.float64)
    states, actions = every_episode(old)
    q, _ = exact_values(old, DISCOUNT)
    places = torch.arange(PROBLEM_STEPS).expand_as(states)
    probability = torch.where(actions == 1, old[states], 1 - old[states])
    values = (1 - old) * q[..., 0] + old * q[..., 1]
    advantages = (q[places, states, actions] - values[places, states]).flatten()[:, None]

    def slope(weights):
        policy = old.clone().requires_grad_()
        ratio = torch.where(actions == 1, policy[states], 1 - policy[states]) / probability
        surrogate = (ratio.flatten() * weighted_advantages(advantages, weights.flatten())[:, 0]).mean()
        return torch.autograd.grad(PROBLEM_STEPS * surrogate, policy)[0]

    policy = old.clone().requires_grad_()
    (exact,) = torch.autograd.grad(exact_values(policy, DISCOUNT)[1], policy)
    weights = DISCOUNT ** places.double()
    torch.testing.assert_close(slope(weights), exact, rtol=1e-9, atol=1e-12)
    # Without the weights of the steps, neither the size nor the direction is right.
    unweighted = slope(torch.ones_like(weights))
    assert torch.cosine_similarity(unweighted, exact, dim=0) < 0.99
    assert weighted_advantages(advantages, weights.flatten()).mean().abs() < 1e-12


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"cost_limit": -1.0}, "cost_limit must be >= 0"),
        ({"cost_limit": math.nan}, "cost_limit must be >= 0"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a whole number >= 1, got 0"),
        ({"gamma": 1.2}, r"gamma must be in \[0, 1\], got 1.2"),
        ({"gamma": 1.0, "unit": "stationary"}, "gamma must be < 1"),
        ({"gamma": 1.0, "unit": "finite"}, "gamma must be < 1"),
        ({"unit": "stationery"}, "must be one of .* got 'stationery'"),
    ],
)
def test_bad_threshold_input_is_named(kwargs, words):
    good = {"cost_limit": 1.0, "max_episode_steps": 10, "gamma": 0.9}
    with pytest.raises(ValueError, match=words):
        cost_threshold(**(good | kwargs))


def test_cost_limits_come_as_a_tuple():
    assert as_cost_limits(10) == (10.0,)
    assert as_cost_limits(np.array([1.0, math.inf])) == (1.0, math.inf)
    with pytest.raises(ValueError, match="cost_limit"):
        as_cost_limits([])


def test_nstep_targets_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    steps, batch, signals, gamma = 4, 50, 3, 0.9
    x = torch.randn(steps, batch, signals, generator=generator, dtype=torch.float64)
    value = torch.randn(batch, signals, generator=generator, dtype=torch.float64)
    length = torch.randint(1, steps + 1, (batch,), generator=generator)
    alive = torch.arange(steps)[:, None] < length
    terminated = torch.rand(batch, generator=generator) < 0.3
    got = nstep_targets(x, alive, terminated, value, gamma)
    for i in range(batch):
        m = int(length[i])
        expected = sum(gamma**k * x[k, i] for k in range(m))
        if not terminated[i]:
            expected = expected + gamma**m * value[i]
        torch.testing.assert_close(got[i], expected)


def test_a_bonus_counts_in_every_state_after_the_first_one_that_is_not_terminal():
    gamma = 0.5
    x = torch.ones(3, 4, 2, dtype=torch.float64)
    alive = torch.tensor([[True] * 4, [True, True, True, False], [True, True, False, False]])
    terminated = torch.tensor([False, True, True, True])
    bonus = torch.tensor([[10.0] * 4, [20.0] * 4, [40.0] * 4], dtype=torch.float64)
    value = torch.full((4, 2), 8.0, dtype=torch.float64)
    plain = nstep_targets(x, alive, terminated, value, gamma)
    got = nstep_targets(x, alive, terminated, value, gamma, bonus)
    # The bonuses of s_1, s_2 and s_3; a terminal state has none, whatever the row says.
    expected = [0.5 * 10 + 0.25 * 20 + 0.125 * 40, 0.5 * 10 + 0.25 * 20, 0.5 * 10, 0.0]
    assert (got - plain)[:, 0].tolist() == expected
    assert torch.equal(got[:, 1], plain[:, 1])


def test_nstep_targets_have_the_value_of_an_endless_constant_signal():
    """The fixed point of the targets is x / (1 - gamma) for any number of steps."""
    gamma = 0.95
    for steps in (1, 2, 5):
        x = torch.full((steps, 1, 1), 2.0, dtype=torch.float64)
        value = torch.zeros(1, 1, dtype=torch.float64)
        for _ in range(600):
            value = nstep_targets(
                x, torch.ones(steps, 1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool), value, gamma
            )
        assert float(value) == pytest.approx(2.0 / (1 - gamma))


def test_the_integral_margin_follows_its_rule_within_its_bounds():
    one, infinite = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([math.inf] * 3)
    aim, cost = torch.tensor([6.0, 6.0, 6.0]), torch.tensor([9.0, 60.0, 0.0])
    bounds = {"rate": 0.1, "largest_excess": aim, "largest": aim / 2}
    margin = integral_margin(one, cost, aim, **bounds)
    torch.testing.assert_close(margin, torch.tensor([1.3, 1.6, 0.4]))
    for _ in range(50):
        margin = integral_margin(margin, cost, aim, **bounds)
    torch.testing.assert_close(margin, torch.tensor([3.0, 3.0, 0.0]))
    unlimited = {"rate": 0.1, "largest_excess": infinite, "largest": infinite}
    assert integral_margin(one, cost, infinite, **unlimited).tolist() == [0.0, 0.0, 0.0]


def test_deviations_are_floored_by_the_size_of_the_signal():
    deviation = floored_deviation(np.array([2.0, 0.0, 0.0]), np.array([5.0, 50.0, 0.0]))
    np.testing.assert_allclose(deviation, [2.0, 0.5, 1.0])
