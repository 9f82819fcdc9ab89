"""Multipliers agree with numbers by hand, finite differences, and a problem with a known multiplier."""

import math

import pytest
import torch

from fsrl_ext.functional.multiplier import (
    augmented_multipliers,
    dual_ascent,
    initial_multipliers,
    lagrangian_loss,
    pid_control,
)

PID = {"gains": (0.5, 0.1, 0.2), "smoothing": 0.0, "multiplier_max": 10.0}


def vector(*values):
    return torch.tensor(values, dtype=torch.float32)


def test_ascent_moves_by_the_surplus_and_stays_within_its_bounds():
    state = initial_multipliers(3, 1.0)
    state = dual_ascent(state, vector(5, 0, 1000), vector(3, 20, 10), lr=0.1, multiplier_max=50.0)
    torch.testing.assert_close(state.multipliers, vector(1.2, 0.0, 50.0))
    assert state.updates == 1


def test_pid_by_hand():
    """P acts on the surplus, I from zero upwards, D on rises alone; the first cost is no rise."""
    state = initial_multipliers(1)
    expected = [
        (14.0, 0.5 * 4 + 0.1 * 4),
        (16.0, 0.5 * 6 + 0.1 * 10 + 0.2 * 2),
        (11.0, 0.5 * 1 + 0.1 * 11),
        (8.0, max(0.0, 0.5 * -2 + 0.1 * 9)),
        (0.0, 0.0),
    ]
    for cost, multiplier in expected:
        state = pid_control(state, vector(cost), vector(10.0), **PID)
        assert state.multipliers.item() == pytest.approx(multiplier, abs=1e-6)
    assert state.integral.item() == 0.0


def test_pid_does_not_wind_up():
    """The multiplier falls as soon as the cost does, however long the cost was far too high."""
    state = initial_multipliers(1)
    for _ in range(1000):
        state = pid_control(state, vector(100.0), vector(10.0), **PID)
    assert state.multipliers.item() == 10.0
    for _ in range(20):
        state = pid_control(state, vector(0.0), vector(10.0), **PID)
    assert state.multipliers.item() == 0.0


def test_pid_smooths_proportional_and_derivative_parts():
    state = initial_multipliers(1)
    gains = {**PID, "gains": (1.0, 0.0, 1.0), "smoothing": 0.75}
    state = pid_control(state, vector(12.0), vector(10.0), **gains)
    assert state.multipliers.item() == pytest.approx(2.0)
    state = pid_control(state, vector(20.0), vector(10.0), **gains)
    assert state.cost.item() == pytest.approx(14.0)
    assert state.multipliers.item() == pytest.approx(4.0 + 2.0)


def test_another_limit_gives_no_derivative_kick():
    gains = {**PID, "gains": (0.0, 0.0, 1.0)}
    state = pid_control(initial_multipliers(1), vector(12.0), vector(100.0), **gains)
    state = pid_control(state, vector(12.0), vector(1.0), **gains)
    assert state.multipliers.item() == 0.0


@pytest.mark.parametrize("gains", [(0.5, 0.1, 0.2), (0.5, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.2)])
def test_infinite_limits_release_a_cost_and_finite_ones_take_it_back(gains):
    settings = {**PID, "gains": gains}
    state = initial_multipliers(2)
    for limit in (5.0, math.inf, 5.0):
        for cost in (10.0, 20.0):
            state = pid_control(state, vector(cost, cost), vector(limit, 5.0), **settings)
        assert all(torch.isfinite(x).all() for x in state)
        assert state.multipliers[1] > 0
        assert (state.multipliers[0] > 0) == math.isfinite(limit)
    ascent = dual_ascent(state, vector(9.0, 9.0), vector(math.inf, 5.0), lr=0.1, multiplier_max=20.0)
    assert ascent.multipliers[0] == 0
    assert ascent.multipliers[1] > state.multipliers[1]


def test_nothing_is_changed_in_place():
    state = initial_multipliers(2, 0.5)
    before = [x.clone() for x in state]
    pid_control(state, vector(9, 9), vector(1, 1), **PID)
    dual_ascent(state, vector(9, 9), vector(1, 1), lr=1.0, multiplier_max=2.0)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))


def test_augmented_multipliers_are_the_gradient_of_the_augmented_lagrangian():
    """They agree with finite differences on both sides of the kink."""
    multipliers, limit, penalty = torch.tensor([0.3, 0.3, 2.0]).double(), torch.ones(3).double(), 4.0
    cost = torch.tensor([0.5, 1.2, 0.9]).double()

    def augmented(cost):
        shifted = (multipliers + penalty * (cost - limit)).clamp(min=0)
        return (shifted.square() - multipliers.square()) / (2 * penalty)

    step = 1e-6
    differences = (augmented(cost + step) - augmented(cost - step)) / (2 * step)
    got = augmented_multipliers(multipliers, cost, limit, penalty=penalty)
    torch.testing.assert_close(got, differences, atol=1e-6, rtol=1e-6)
    assert got[0] == 0
    torch.testing.assert_close(augmented_multipliers(multipliers, cost, limit, penalty=0.0), multipliers)
    free = augmented_multipliers(multipliers, cost, torch.full((3,), math.inf).double(), penalty=4.0)
    assert not free.any()


def test_rescaled_loss():
    loss, cost, multipliers = torch.tensor(-2.0), vector(3.0, 5.0), vector(0.5, 2.5)
    assert lagrangian_loss(loss, cost, multipliers, rescale=False).item() == pytest.approx(-2 + 1.5 + 12.5)
    assert lagrangian_loss(loss, cost, multipliers, rescale=True).item() == pytest.approx(12.0 / 4.0)
    assert lagrangian_loss(loss, cost, torch.zeros(2), rescale=True).item() == -2.0


@pytest.mark.parametrize("method", ["ascent", "pid"])
@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_primal_dual_finds_the_price(method, penalty):
    """The optimum of min (x - 3)^2 subject to x <= 1 is 1, and its multiplier is 4."""
    x, limit, state = torch.tensor([0.0], requires_grad=True), vector(1.0), initial_multipliers(1)
    for _ in range(2000):
        prices = augmented_multipliers(state.multipliers, x.detach(), limit, penalty=penalty)
        loss = lagrangian_loss((x - 3).square().sum(), x, prices, rescale=True)
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x - 0.1 * gradient).detach().requires_grad_(True)
        if method == "ascent":
            state = dual_ascent(state, x.detach(), limit, lr=0.1, multiplier_max=100.0)
        else:
            settings = {"gains": (0.5, 0.05, 0.1), "smoothing": 0.5, "multiplier_max": 100.0}
            state = pid_control(state, x.detach(), limit, **settings)
    assert x.item() == pytest.approx(1.0, abs=1e-3)
    assert state.multipliers.item() == pytest.approx(4.0, abs=1e-2)


def test_one_update_adds_no_more_than_its_largest_surplus_to_the_integral():
    state = initial_multipliers(1)
    common = {"gains": (0.0, 0.1, 0.0), "smoothing": 0.0, "multiplier_max": 100.0, "surplus_max": 5.0}
    state = pid_control(state, torch.tensor([1000.0]), torch.tensor([10.0]), **common)
    assert state.multipliers.item() == pytest.approx(0.5)
    state = pid_control(state, torch.tensor([7.0]), torch.tensor([10.0]), **common)
    assert state.multipliers.item() == pytest.approx(0.2)
    released = pid_control(state, torch.tensor([7.0]), torch.tensor([float("inf")]), **common)
    assert released.multipliers.item() == 0.0
