"""The E-step against autograd, scipy, a conic solver, and problems built from their optimum."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize

from fsrl_ext.functional.estep import (
    EStepSolution,
    boltzmann_weights,
    dual_gradient,
    dual_value,
    kkt_residual,
    kl_to_uniform,
    largest_reduction,
    solve_dual,
)
from fsrl_ext.functional.estep import solve as solve_module
from fsrl_ext.functional.estep.fallback import minimise_in_box

INF = math.inf


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def draw(
    seed: int, num_states: int = 8, num_actions: int = 6, num_costs: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_states, num_actions)
    q_reward = torch.randn(shape, generator=generator, dtype=torch.float64)
    q_cost = torch.randn((num_costs, *shape), generator=generator, dtype=torch.float64)
    return q_reward, q_cost


def thresholds(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def expected(weights: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (weights * q).sum(-1).mean(-1)


def spread(q: torch.Tensor) -> float:
    return float((q - q.mean(-1, keepdim=True)).square().mean().sqrt())


def assert_optimal(
    solution: EStepSolution,
    q_reward: torch.Tensor,
    q_cost: torch.Tensor,
    kl_bound: float,
    threshold: torch.Tensor,
) -> None:
    """Check the trust region, the costs and the duality gap, a certificate without a second solver."""
    weights = solution.weights.double()
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights), dtype=torch.float64))
    assert float(weights.min()) >= 0.0
    assert float(kl_to_uniform(weights)) <= kl_bound * (1 + 1e-6)
    for q, d in zip(q_cost, threshold, strict=True):
        assert float(expected(weights, q) - d) <= 1e-6 * spread(q) + 1e-12
    bound = dual_value(
        q_reward,
        q_cost,
        solution.temperature,
        solution.multipliers,
        kl_bound=kl_bound,
        cost_threshold=threshold,
    )
    gap = float(bound - expected(weights, q_reward))
    rounding = 1e-11 * (1.0 + float(q_reward.abs().max()))
    assert abs(gap) <= 1e-6 * spread(q_reward) + rounding


def least_cost_by_root(q_cost: torch.Tensor, kl_bound: float) -> tuple[float, torch.Tensor]:
    """Return the least ``E_q[Q_c]`` in the KL ball and its weights, from SciPy's root finder."""

    def weights(nu: float) -> torch.Tensor:
        return torch.softmax(-nu * q_cost, dim=-1)

    nu = brentq(lambda nu: float(kl_to_uniform(weights(nu))) - kl_bound, 0.0, 1e3, xtol=1e-14)
    return float(expected(weights(nu), q_cost)), weights(nu)


# ------------------------------------------------------------------ dual function


@pytest.mark.parametrize("num_costs", [0, 1, 3])
def test_gradient_matches_autograd(num_costs: int) -> None:
    q_reward, q_cost = draw(0, num_costs=num_costs)
    threshold = torch.linspace(-0.2, 0.3, num_costs, dtype=torch.float64)
    point = torch.tensor([0.7, 0.4, 0.0, 1.3][: 1 + num_costs], dtype=torch.float64)

    def value(point: torch.Tensor) -> torch.Tensor:
        return dual_value(q_reward, q_cost, point[0], point[1:], kl_bound=0.1, cost_threshold=threshold)

    gradient = torch.autograd.functional.jacobian(value, point)
    ours = dual_gradient(q_reward, q_cost, point[0], point[1:], kl_bound=0.1, cost_threshold=threshold)
    torch.testing.assert_close(ours, gradient, rtol=1e-10, atol=1e-12)


def test_dual_bounds_the_reward_of_every_feasible_q() -> None:
    q_reward, q_cost = draw(1)
    q = torch.softmax(0.3 * q_reward - 0.2 * q_cost[0], dim=-1)
    kl_bound, threshold = float(kl_to_uniform(q)), expected(q, q_cost)
    for temperature, multiplier in ((0.1, 0.0), (1.0, 3.0), (5.0, 0.2), (30.0, 50.0)):
        value = dual_value(
            q_reward,
            q_cost,
            temperature,
            thresholds(multiplier),
            kl_bound=kl_bound,
            cost_threshold=threshold,
        )
        assert float(value) >= float(expected(q, q_reward))


def test_kl_to_uniform() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert float(kl_to_uniform(weights)) == pytest.approx(0.5 * (math.log(2) + math.log(4)))


# ------------------------------------------------------------------ each status, known beforehand


def built(
    seed: int, temperature: float, multipliers: tuple[float, ...], slack: float = 0.3
) -> tuple[torch.Tensor, torch.Tensor, float, torch.Tensor, torch.Tensor]:
    """Return a problem whose optimum has this temperature and these multipliers, by its KKT conditions."""
    q_reward, q_cost = draw(seed, num_costs=len(multipliers))
    weights = boltzmann_weights(q_reward, q_cost, temperature, thresholds(*multipliers))
    kl_bound = float(kl_to_uniform(weights))
    unused = torch.tensor([0.0 if m > 0 else slack for m in multipliers], dtype=torch.float64)
    return q_reward, q_cost, kl_bound, expected(weights, q_cost) + unused, weights


@pytest.mark.parametrize(
    ("multipliers", "status"),
    [
        ((), "slack"),
        ((0.0,), "slack"),
        ((0.8,), "active"),
        ((1e-3,), "active"),
        ((40.0,), "active"),
        ((0.0, 0.0, 0.0), "slack"),
        ((0.0, 0.5), "active"),
        ((0.7, 0.0, 2.0), "active"),
        ((0.3, 0.6, 0.1), "active"),
    ],
)
@pytest.mark.parametrize("temperature", [0.6, 2.0, 20.0])
def test_finds_the_optimum_a_problem_was_built_from(
    multipliers: tuple[float, ...], status: str, temperature: float
) -> None:
    q_reward, q_cost, kl_bound, threshold, weights = built(3, temperature, multipliers)
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    assert solution.status == status
    assert solution.temperature == pytest.approx(temperature, rel=1e-6)
    torch.testing.assert_close(
        solution.multipliers, thresholds(*multipliers), rtol=1e-5, atol=1e-7 * temperature
    )
    torch.testing.assert_close(solution.weights, weights, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(solution.expected_cost, expected(weights, q_cost))
    assert solution.kl == pytest.approx(kl_bound, rel=1e-8)
    assert_optimal(solution, q_reward, q_cost, kl_bound, threshold)


def test_infeasible_returns_the_least_cost_at_the_edge_of_the_ball() -> None:
    q_reward, q_cost = draw(4)
    least, weights = least_cost_by_root(q_cost[0], 0.1)
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(least - 1e-4))
    assert solution.status == "infeasible"
    assert solution.kl == pytest.approx(0.1, rel=1e-8)
    assert float(solution.expected_cost) == pytest.approx(least, abs=1e-8)
    torch.testing.assert_close(solution.weights, weights, rtol=1e-6, atol=1e-8)
    # The reported pair gives these weights, with Q_r left out.
    ratio = solution.multipliers / solution.temperature
    torch.testing.assert_close(torch.softmax(-ratio * q_cost[0], dim=-1), weights)
    assert float(solution.multipliers * q_cost[0].std(correction=0)) == pytest.approx(1.0)


@pytest.mark.parametrize("offset", [1e-9, 1e-7, 1e-5, 1e-3])
def test_thresholds_at_the_border_of_feasibility(offset: float) -> None:
    q_reward, q_cost = draw(5)
    least, _ = least_cost_by_root(q_cost[0], 0.1)
    inside = thresholds(least + offset)
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=inside)
    assert solution.status == "active"
    assert_optimal(solution, q_reward, q_cost, 0.1, inside)
    if offset > 2e-9:
        outside = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(least - offset))
        assert outside.status == "infeasible"


def test_the_largest_reduction_is_that_of_the_cheapest_weights_in_a_small_ball() -> None:
    """The problem without a reward has its least cost at the edge of the ball."""
    q_reward, q_cost = draw(3, num_states=40, num_actions=12, num_costs=2)
    for kl_bound, tolerance in ((1e-6, 1e-3), (0.05, 0.15)):
        reduction = largest_reduction(q_cost, kl_bound)
        for cost, expected in zip(q_cost, reduction, strict=True):
            least = solve_dual(
                0 * q_reward,
                cost[None],
                kl_bound=kl_bound,
                cost_threshold=torch.tensor([-1e3], dtype=torch.float64),
            )
            assert least.kl == pytest.approx(kl_bound, rel=1e-3)
            reached = float(cost.mean() - least.expected_cost[0])
            assert reached == pytest.approx(float(expected), rel=tolerance)


def test_infeasible_even_without_a_trust_region() -> None:
    q_reward, q_cost = draw(6, num_costs=2)
    below = q_cost.amin(-1).mean(-1) - 1.0
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=below)
    assert solution.status == "infeasible"
    assert solution.kl == pytest.approx(0.1, rel=1e-6)
    assert solution.kkt_residual < 1e-7


def test_least_cost_inside_the_ball_is_uniform_over_the_minimisers() -> None:
    q_cost = torch.tensor([[[1.0, 1.0, 3.0, 4.0], [2.0, 5.0, 7.0, 9.0]]], dtype=torch.float64)
    q_reward, _ = draw(7, 2, 4)
    solution = solve_dual(q_reward, q_cost, kl_bound=5.0, cost_threshold=thresholds(0.5))
    wanted = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert solution.status == "infeasible"
    torch.testing.assert_close(solution.weights, wanted, rtol=0, atol=1e-12)


def test_saturated_is_uniform_over_the_maximisers() -> None:
    q_reward = torch.tensor([[2.0, 2.0, 0.0, 1.0], [5.0, 1.0, 3.0, 2.0]], dtype=torch.float64)
    q_cost = draw(8, 2, 4)[1]
    wanted = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    needed = 0.5 * (math.log(2) + math.log(4))
    threshold = expected(wanted, q_cost) + 0.1
    solution = solve_dual(q_reward, q_cost, kl_bound=needed + 0.01, cost_threshold=threshold)
    assert solution.status == "saturated"
    torch.testing.assert_close(solution.weights, wanted, rtol=0, atol=1e-12)
    assert solution.kl == pytest.approx(needed)
    assert_optimal(solution, q_reward, q_cost, needed + 0.01, threshold)
    # With a little less room the KL constraint binds again.
    tight = solve_dual(q_reward, q_cost, kl_bound=needed - 0.01, cost_threshold=threshold + 1.0)
    assert tight.status == "slack"
    assert tight.kl == pytest.approx(needed - 0.01)


def test_saturated_mix_when_a_cost_stops_the_greedy_choice() -> None:
    # Reward and cost agree, so half of each action meets the threshold; no KL bound binds.
    q_reward = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    q_cost = q_reward[None].clone()
    solution = solve_dual(q_reward, q_cost, kl_bound=1.0, cost_threshold=thresholds(0.75))
    assert solution.status == "saturated"
    torch.testing.assert_close(
        solution.weights, torch.tensor([[0.75, 0.25]], dtype=torch.float64), rtol=0, atol=1e-7
    )
    assert float(solution.multipliers) == pytest.approx(1.0, abs=1e-5)
    assert_optimal(solution, q_reward, q_cost, 1.0, thresholds(0.75))


def test_one_action_leaves_no_choice() -> None:
    q_reward, q_cost = draw(9, 5, 1)
    level = float(q_cost.mean())
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(level + 0.1))
    assert solution.status == "saturated"
    assert solution.kl == 0.0
    torch.testing.assert_close(solution.weights, torch.ones_like(q_reward))
    above = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(level - 0.1))
    assert above.status == "infeasible"
    torch.testing.assert_close(above.weights, torch.ones_like(q_reward))


@pytest.mark.parametrize("noise", [0.0, 1e-16])
def test_flat_reward(noise: float) -> None:
    random, q_cost = draw(10)
    q_reward = 7.0 * (1.0 + noise * random) * torch.arange(1.0, 9.0).double()[:, None]
    uniform = torch.full_like(q_reward, 1.0 / 6.0)
    mean = float(q_cost.mean())
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(mean + 1e-3))
    assert solution.status == "flat"
    assert solution.kl == pytest.approx(0.0, abs=1e-15)
    torch.testing.assert_close(solution.weights, uniform)

    # Above the threshold the answer is the q closest to uniform that meets it, softmax(-nu Q_c).
    tilted = torch.softmax(-0.2 * q_cost[0], dim=-1)
    threshold = expected(tilted, q_cost)
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=threshold)
    assert solution.status == "flat"
    torch.testing.assert_close(solution.weights, tilted, rtol=1e-7, atol=1e-9)
    assert solution.kl < 0.1
    assert_optimal(solution, q_reward, q_cost, 0.1, threshold)

    least, cheapest = least_cost_by_root(q_cost[0], 0.1)
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(least - 0.1))
    assert solution.status == "infeasible"
    torch.testing.assert_close(solution.weights, cheapest, rtol=1e-6, atol=1e-8)


def test_flat_cost_is_plain_mpo_or_infeasible() -> None:
    q_reward, _ = draw(11)
    q_cost = torch.linspace(0.0, 3.0, 8, dtype=torch.float64)[None, :, None].expand(1, 8, 6)
    plain = solve_dual(q_reward, q_cost[:0], kl_bound=0.1, cost_threshold=thresholds())
    for threshold, status in ((1.6, "slack"), (1.5, "slack"), (1.4, "infeasible")):
        solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(threshold))
        assert solution.status == status
        torch.testing.assert_close(solution.weights, plain.weights)
        assert float(solution.expected_cost) == pytest.approx(1.5)


def test_a_threshold_equal_to_a_flat_cost_is_met() -> None:
    """0.1 in float32 is larger than 0.1, which is rounding and no violation."""
    q_reward = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    solution = solve_dual(q_reward, torch.full((1, 4, 5), 0.1), kl_bound=0.1, cost_threshold=thresholds(0.1))
    assert solution.status == "slack"


def test_everything_flat_is_uniform() -> None:
    ones = torch.ones(4, 5)
    for threshold, status in ((1.0, "flat"), (2.0, "flat"), (0.5, "infeasible")):
        solution = solve_dual(3.0 * ones, ones[None], kl_bound=0.1, cost_threshold=torch.tensor([threshold]))
        assert solution.status == status
        torch.testing.assert_close(solution.weights, ones / 5)
        assert math.isfinite(solution.temperature)


def test_float32_rounding_is_not_a_preference() -> None:
    """A constant critic that rounds differently for each action must not move the weights."""
    base = torch.full((16, 8), 1234.5)
    noisy = torch.nextafter(base, base + torch.randn(16, 8, generator=torch.Generator()))
    solution = solve_dual(noisy, torch.randn(1, 16, 8), kl_bound=0.1, cost_threshold=thresholds(10.0))
    assert solution.status == "flat"
    torch.testing.assert_close(solution.weights, torch.full((16, 8), 0.125))


def test_states_of_very_different_spread() -> None:
    q_reward, q_cost = draw(12, 40, 8)
    factor = torch.logspace(-3, 3, 40, dtype=torch.float64)[:, None]
    q_cost = q_cost * factor.flip(0)
    weights = boltzmann_weights(q_reward * factor, q_cost, 40.0, thresholds(0.5))
    kl_bound, threshold = float(kl_to_uniform(weights)), expected(weights, q_cost)
    solution = solve_dual(q_reward * factor, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    assert solution.status == "active"
    torch.testing.assert_close(solution.weights, weights, rtol=1e-4, atol=1e-7)
    assert_optimal(solution, q_reward * factor, q_cost, kl_bound, threshold)


# ------------------------------------------------------------------ limits


def test_infinite_threshold_is_no_constraint() -> None:
    q_reward, q_cost, kl_bound, threshold, weights = built(13, 1.5, (0.6, 0.0))
    with_third = torch.cat([q_cost, q_cost[:1] * 50])
    solution = solve_dual(
        q_reward,
        with_third,
        kl_bound=kl_bound,
        cost_threshold=torch.cat([threshold, thresholds(INF)]),
    )
    assert solution.status == "active"
    torch.testing.assert_close(solution.weights, weights, rtol=1e-6, atol=1e-9)
    assert float(solution.multipliers[2]) == 0.0
    assert bool(torch.isfinite(solution.expected_cost).all())
    free = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=thresholds(INF, INF))
    assert free.status == "slack"
    assert math.isfinite(free.kkt_residual)


def test_slack_constraint_is_plain_mpo() -> None:
    q_reward, q_cost = draw(14)
    eta = brentq(lambda eta: float(kl_to_uniform(torch.softmax(q_reward / eta, -1))) - 0.1, 0.1, 100.0)
    wanted = torch.softmax(q_reward / eta, -1)
    for cost, threshold in ((q_cost, thresholds(5.0)), (0.0 * q_cost, thresholds(0.0))):
        solution = solve_dual(q_reward, cost, kl_bound=0.1, cost_threshold=threshold)
        assert solution.status == "slack"
        assert solution.temperature == pytest.approx(eta, rel=1e-9)
        torch.testing.assert_close(solution.weights, wanted)


@pytest.mark.parametrize("kl_bound", [1e-8, 1e-6, 1e-4, 1.0, 1.7, 100.0])
def test_small_and_large_trust_regions(kl_bound: float) -> None:
    """The answer is optimal from near-uniform weights to a temperature near zero (log N = 1.79)."""
    q_reward, q_cost = draw(15)
    threshold = q_cost.mean((1, 2)) - 0.1 * min(math.sqrt(kl_bound), 1.0)
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    assert solution.status == ("active" if kl_bound < 1.0 else solution.status)
    assert solution.status in ("active", "slack", "saturated")
    assert_optimal(solution, q_reward, q_cost, kl_bound, threshold)


def test_one_state() -> None:
    q_reward, q_cost = draw(16, 1, 5)
    weights = boltzmann_weights(q_reward, q_cost, 1.2, thresholds(0.4))
    kl_bound, threshold = float(kl_to_uniform(weights)), expected(weights, q_cost)
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    torch.testing.assert_close(solution.weights, weights, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------ invariances


@pytest.mark.parametrize("multipliers", [(0.0,), (0.8,), (0.7, 0.0, 2.0)])
def test_invariances(multipliers: tuple[float, ...]) -> None:
    q_reward, q_cost, kl_bound, threshold, _ = built(17, 1.3, multipliers)
    generator = torch.Generator().manual_seed(0)
    base = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)

    shift = 100.0 * torch.randn(8, 1, generator=generator, dtype=torch.float64)
    shift_cost = 100.0 * torch.randn(len(q_cost), 8, 1, generator=generator, dtype=torch.float64)
    shifted = solve_dual(
        q_reward + shift,
        q_cost + shift_cost,
        kl_bound=kl_bound,
        cost_threshold=threshold + shift_cost.mean((1, 2)),
    )
    assert shifted.status == base.status
    torch.testing.assert_close(shifted.weights, base.weights, rtol=1e-6, atol=1e-9)

    scale = torch.logspace(-3, 3, len(q_cost), dtype=torch.float64)
    scaled = solve_dual(
        1e3 * q_reward,
        q_cost * scale[:, None, None],
        kl_bound=kl_bound,
        cost_threshold=threshold * scale,
    )
    assert scaled.status == base.status
    torch.testing.assert_close(scaled.weights, base.weights, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(scaled.multipliers, 1e3 * base.multipliers / scale, rtol=1e-5, atol=0)
    assert scaled.temperature == pytest.approx(1e3 * base.temperature, rel=1e-6)

    order = torch.argsort(torch.rand(8, 6, generator=generator), dim=-1)
    permuted = solve_dual(
        q_reward.gather(-1, order),
        q_cost.gather(-1, order.expand_as(q_cost)),
        kl_bound=kl_bound,
        cost_threshold=threshold,
    )
    torch.testing.assert_close(permuted.weights, base.weights.gather(-1, order), rtol=1e-6, atol=1e-9)


def test_offsets_that_dwarf_the_spread() -> None:
    q_reward, q_cost, kl_bound, threshold, weights = built(18, 1.3, (0.8, 0.3))
    q_reward, q_cost = 1e4 + 1e-3 * q_reward, -1e4 + 1e-3 * q_cost
    threshold = -1e4 + 1e-3 * threshold
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    assert solution.status == "active"
    torch.testing.assert_close(solution.weights, weights, rtol=1e-5, atol=1e-8)


def test_duplicate_costs_share_the_multiplier() -> None:
    q_reward, q_cost, kl_bound, threshold, weights = built(19, 1.3, (0.8,))
    solution = solve_dual(
        q_reward,
        q_cost.repeat(2, 1, 1),
        kl_bound=kl_bound,
        cost_threshold=threshold.repeat(2),
    )
    assert solution.status == "active"
    torch.testing.assert_close(solution.weights, weights, rtol=1e-6, atol=1e-8)
    assert float(solution.multipliers.sum()) == pytest.approx(0.8, rel=1e-5)


# ------------------------------------------------------------------ against a conic solver


def conic_optimum(
    q_reward: np.ndarray, q_cost: np.ndarray, kl_bound: float, threshold: np.ndarray
) -> tuple[float, float | None]:
    """Return the least largest violation, and the best reward if that is not positive."""
    cp = pytest.importorskip("cvxpy")
    num_states, num_actions = q_reward.shape
    q = cp.Variable(q_reward.shape, nonneg=True)
    ball = [
        cp.sum(q, axis=1) == 1,
        cp.sum(cp.rel_entr(q, 1 / num_actions)) <= num_states * kl_bound,
    ]
    excess = [
        (cp.sum(cp.multiply(q, c)) / num_states - d) / c.std() for c, d in zip(q_cost, threshold, strict=True)
    ]
    worst = cp.Problem(cp.Minimize(cp.max(cp.hstack(excess))), ball)
    worst.solve(solver="CLARABEL")
    if worst.value > 0.0:
        return float(worst.value), None
    reward = cp.sum(cp.multiply(q, q_reward)) / num_states
    best = cp.Problem(cp.Maximize(reward), [*ball, *(e <= 0 for e in excess)])
    best.solve(solver="CLARABEL")
    return float(worst.value), float(best.value)


@pytest.mark.parametrize("seed", range(15))
def test_several_costs_match_a_conic_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_costs = 2 + seed % 2
    q_reward = rng.standard_normal((4, 5))
    q_cost = rng.standard_normal((num_costs, 4, 5)) + 0.5 * q_reward
    q_cost += rng.standard_normal((num_costs, 4, 1))
    # A third of the seeds each is mostly slack, mostly active, infeasible.
    level = (0.1, -0.2, -0.9)[seed % 3]
    threshold = q_cost.mean((1, 2)) + level * rng.uniform(0.5, 1.0, num_costs)
    violation, reward = conic_optimum(q_reward, q_cost, 0.15, threshold)
    assert abs(violation) > 1e-4, "an unclear problem tests nothing"
    solution = solve_dual(
        torch.from_numpy(q_reward),
        torch.from_numpy(q_cost),
        kl_bound=0.15,
        cost_threshold=torch.from_numpy(threshold),
    )
    assert (solution.status == "infeasible") == (reward is None)
    cost = expected(solution.weights, torch.from_numpy(q_cost)).numpy()
    if reward is None:
        largest = np.max((cost - threshold) / q_cost.std((1, 2)))
        assert largest == pytest.approx(violation, abs=2e-6)
    else:
        assert float(expected(solution.weights, torch.from_numpy(q_reward))) == pytest.approx(
            reward, abs=2e-6
        )
    assert solution.kkt_residual < 1e-7


def test_conflicting_costs_balance() -> None:
    """Costs Q and -Q whose thresholds are both too low share the least violation."""
    q_reward, q_cost = draw(20)
    both = torch.cat([q_cost, -q_cost])
    mean = float(q_cost.mean())
    threshold = thresholds(mean - 0.2, -mean - 0.4)
    solution = solve_dual(q_reward, both, kl_bound=0.1, cost_threshold=threshold)
    assert solution.status == "infeasible"
    torch.testing.assert_close(solution.expected_cost - threshold, thresholds(0.3, 0.3), rtol=0, atol=1e-6)
    assert solution.kl <= 0.1 * (1 + 1e-6)


# ------------------------------------------------------------------ certificate on odd problems


def odd_problem(seed: int) -> tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]:
    """Draw ties, rare indicators, heavy tails, costs that copy or oppose the reward, any KL bound."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 7)), int(rng.integers(2, 7)))

    def q() -> np.ndarray:
        x = rng.standard_normal(shape)
        kind = rng.integers(5)
        if kind == 1:
            x *= 10 ** rng.uniform(-3, 3, (shape[0], 1))
        elif kind == 2:
            x = np.round(x)
        elif kind == 3:
            x = (rng.random(shape) < 0.2).astype(float)
        elif kind == 4:
            x = rng.exponential(size=shape) ** 2
        return x * 10 ** rng.uniform(-3, 3)

    q_reward = q()
    costs = []
    threshold = []
    for _ in range(int(rng.integers(1, 4))):
        cost = q() if rng.random() < 0.8 else rng.choice([-1.0, 2.0]) * q_reward
        low, middle = cost.min(1).mean(), cost.mean()
        costs.append(cost)
        threshold.append(middle + (low - middle) * rng.uniform(-0.3, 1.05) ** 3)
    kl_bound = 10 ** rng.uniform(-3, 0.7)
    return (
        torch.from_numpy(q_reward),
        torch.from_numpy(np.stack(costs)),
        kl_bound,
        torch.tensor(threshold, dtype=torch.float64),
    )


@pytest.mark.parametrize("block", range(4))
def test_odd_problems_are_certified(block: int) -> None:
    seen = set()
    for seed in range(100 * block, 100 * block + 100):
        q_reward, q_cost, kl_bound, threshold = odd_problem(seed)
        solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
        seen.add(solution.status)
        residual = kkt_residual(q_reward, q_cost, solution, kl_bound=kl_bound, cost_threshold=threshold)
        assert residual < 1e-6, seed
        assert solution.num_steps <= 500, seed
        assert solution.kl <= kl_bound * (1 + 1e-6), seed
        if solution.status != "infeasible":
            assert_optimal(solution, q_reward, q_cost, kl_bound, threshold)
    assert {"active", "infeasible", "saturated"} <= seen


def test_the_safe_path_alone_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ordinary problems end in Newton's method; the fallback must give the same answers."""
    problems = [
        built(21, 1.3, (0.8,))[:4],
        built(22, 0.5, (0.7, 0.0, 2.0))[:4],
        (*draw(23, num_costs=2), 0.1, thresholds(-1.0, -1.2)),
        (*draw(24, num_costs=3), 0.3, thresholds(-0.8, -0.9, -0.4)),
    ]

    def solve_all() -> list[EStepSolution]:
        return [solve_dual(r, c, kl_bound=e, cost_threshold=d) for r, c, e, d in problems]

    fast = solve_all()
    monkeypatch.setattr(solve_module, "newton_with_set_changes", lambda *args: None)
    monkeypatch.setattr(solve_module, "least_violation_newton", lambda *args: None)
    safe = solve_all()
    assert [s.status for s in safe] == ["active", "active", "infeasible", "infeasible"]
    for ours, other in zip(fast, safe, strict=True):
        assert ours.status == other.status
        assert ours.num_steps < other.num_steps
        torch.testing.assert_close(ours.weights, other.weights, rtol=1e-5, atol=1e-8)


def test_the_cost_that_is_worst_at_first_need_not_be_the_one_that_stays_worst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first cost is easy to lower, and the others hardly depend on the action."""
    q_reward, q_cost = draw(24, num_costs=3)
    between = torch.linspace(-2.0, 2.0, 8, dtype=torch.float64)[:, None]
    q_cost[1:] = 0.1 * q_cost[0] + 0.05 * q_cost[1:] + between
    std = q_cost.std((1, 2), correction=0)
    threshold = q_cost.mean((1, 2)) - thresholds(0.5, 0.4, 0.4) * std
    fast = solve_dual(q_reward, q_cost, kl_bound=0.3, cost_threshold=threshold)
    monkeypatch.setattr(solve_module, "least_violation_newton", lambda *args: None)
    safe = solve_dual(q_reward, q_cost, kl_bound=0.3, cost_threshold=threshold)
    for solution in (fast, safe):
        assert solution.status == "infeasible"
        excess = (solution.expected_cost - threshold) / std
        assert float(excess[1]) > float(excess[0]) + 0.1
        assert float(excess[1]) == pytest.approx(float(excess[2]), abs=1e-8)
        assert solution.kkt_residual < 1e-7
    torch.testing.assert_close(safe.weights, fast.weights, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_box_minimiser_matches_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((3, 3))
    quadratic, linear = factor @ factor.T + 0.1 * np.eye(3), 3 * rng.standard_normal(3)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value = 0.5 * x @ quadratic @ x + linear @ x + np.exp(x).sum()
        return value, quadratic @ x + linear + np.exp(x), quadratic + np.diag(np.exp(x))

    lower, upper = np.zeros(3), np.array([0.5, np.inf, 2.0])
    x, value = minimise_in_box(objective, np.full(3, 0.2), lower, upper, tolerance=1e-10)
    reference = minimize(
        lambda x: objective(x)[0], np.full(3, 0.2), bounds=list(zip(lower, upper, strict=True))
    )
    assert value <= reference.fun + 1e-9
    np.testing.assert_allclose(x, reference.x, atol=1e-4)


# ------------------------------------------------------------------ KKT residual


def test_kkt_residual_sees_every_condition() -> None:
    q_reward, q_cost, kl_bound, threshold, _ = built(25, 1.3, (0.8,))

    def residual(solution: EStepSolution, kl_bound: float = kl_bound, shift: float = 0.0) -> float:
        return kkt_residual(q_reward, q_cost, solution, kl_bound=kl_bound, cost_threshold=threshold + shift)

    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    assert residual(solution) < 1e-8
    assert residual(solution) == pytest.approx(solution.kkt_residual, abs=1e-9)
    assert residual(solution, kl_bound=0.9 * kl_bound) == pytest.approx(1 / 0.9 - 1, rel=0.5)
    assert residual(solution, kl_bound=1.1 * kl_bound) > 1e-3  # budget left at a positive price
    assert residual(solution, shift=-0.01) > 1e-3  # cost not met
    assert residual(solution, shift=0.01) > 1e-3  # slack at a positive price
    assert residual(replace(solution, temperature=1.4)) > 1e-3  # not the softmax
    assert residual(replace(solution, multipliers=solution.multipliers + 0.1)) > 1e-3
    assert residual(replace(solution, weights=solution.weights.flip(-1))) > 1e-1


def test_kkt_residual_of_an_infeasible_problem() -> None:
    q_reward, q_cost = draw(26, num_costs=2)
    threshold = thresholds(-1.0, -0.9)
    solution = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=threshold)
    arguments = {"kl_bound": 0.1, "cost_threshold": threshold}
    assert solution.status == "infeasible"
    assert kkt_residual(q_reward, q_cost, solution, **arguments) < 1e-7
    # The least cost of the first alone leaves the second worse off.
    other = solve_dual(q_reward, q_cost[:1], kl_bound=0.1, cost_threshold=threshold[:1])
    other = replace(other, multipliers=torch.cat([other.multipliers, thresholds(0.0)]))
    assert kkt_residual(q_reward, q_cost, other, **arguments) > 1e-3


# ------------------------------------------------------------------ elastic constraints


def test_multiplier_max_caps_the_price_and_keeps_the_trust_region() -> None:
    q_reward, q_cost, kl_bound, threshold, weights = built(27, 1.3, (2.0,))
    loose = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold, multiplier_max=2.1)
    torch.testing.assert_close(loose.weights, weights, rtol=1e-6, atol=1e-9)
    capped = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold, multiplier_max=0.5)
    # At the cap this is plain MPO on Q_r - 0.5 Q_c.
    mpo = solve_dual(q_reward - 0.5 * q_cost[0], q_cost, kl_bound=kl_bound, cost_threshold=thresholds(INF))
    assert capped.status == "active"
    assert float(capped.multipliers) == pytest.approx(0.5, rel=1e-12)
    assert capped.kl == pytest.approx(kl_bound, rel=1e-8)
    assert float(capped.expected_cost) > float(threshold)
    torch.testing.assert_close(capped.weights, mpo.weights, rtol=1e-6, atol=1e-9)
    assert capped.kkt_residual < 1e-7


def test_multiplier_max_on_an_infeasible_problem() -> None:
    q_reward, q_cost = draw(28, num_costs=2)
    threshold = thresholds(-1.5, 0.02)
    capped = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=threshold, multiplier_max=3.0)
    assert capped.status == "infeasible"
    assert capped.kl == pytest.approx(0.1, rel=1e-8)
    assert float(capped.multipliers[0]) == pytest.approx(3.0)
    # The penalty is exact: its value at the primal equals the dual's.
    reward = expected(capped.weights, q_reward)
    penalty = 3.0 * (capped.expected_cost - threshold).clamp(min=0.0).sum()
    bound = dual_value(
        q_reward,
        q_cost,
        capped.temperature,
        capped.multipliers,
        kl_bound=0.1,
        cost_threshold=threshold,
    )
    assert float(bound - (reward - penalty)) == pytest.approx(0.0, abs=1e-7)
    exact = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=threshold)
    strict = solve_dual(q_reward, q_cost[:1], kl_bound=0.1, cost_threshold=threshold[:1], multiplier_max=1e5)
    only = solve_dual(q_reward, q_cost[:1], kl_bound=0.1, cost_threshold=threshold[:1])
    assert exact.status == only.status == "infeasible"
    # A high price for one cost tends to the q of least cost.
    torch.testing.assert_close(strict.weights, only.weights, rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------ dtypes, mutation


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_inputs_are_not_changed(shift: float) -> None:
    """Slack, active and infeasible problems leave them; the published code subtracts from an alias."""
    q_reward, q_cost, kl_bound, threshold, _ = built(32, 1.3, (0.8, 0.4))
    threshold = threshold + shift
    copies = q_reward.clone(), q_cost.clone(), threshold.clone()
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    dual_gradient(
        q_reward,
        q_cost,
        solution.temperature,
        solution.multipliers,
        kl_bound=kl_bound,
        cost_threshold=threshold,
    )
    for tensor, copy in zip((q_reward, q_cost, threshold), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_weights_are_no_view_of_a_later_solve() -> None:
    q_reward, q_cost, kl_bound, threshold, weights = built(33, 1.3, (0.8,))
    first = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    solve_dual(-q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    torch.testing.assert_close(first.weights, weights, rtol=1e-6, atol=1e-9)
    assert first.weights.is_contiguous()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)]
)
def test_low_precision_inputs_are_solved_in_float64(dtype: torch.dtype, tolerance: float) -> None:
    q_reward, q_cost = draw(34, 32, 8)
    q_reward, q_cost = q_reward.to(dtype).requires_grad_(), q_cost.to(dtype)
    threshold = torch.tensor([-0.2])
    arguments = {"kl_bound": 0.1, "cost_threshold": threshold}
    low = solve_dual(q_reward, q_cost, **arguments)
    high = solve_dual(q_reward.double(), q_cost.double(), **arguments)
    assert low.weights.dtype == dtype
    assert not low.weights.requires_grad
    assert low.kl == pytest.approx(high.kl, abs=1e-15)
    assert low.multipliers.dtype == torch.float64
    torch.testing.assert_close(low.weights.double(), high.weights, rtol=0, atol=tolerance)
    if dtype == torch.float32:  # the guarantees survive the rounding of the weights
        assert_optimal(low, q_reward.detach().double(), q_cost.double(), 0.1, threshold.double())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_follows_the_inputs() -> None:
    q_reward, q_cost, kl_bound, threshold, weights = built(35, 1.3, (0.8,))
    solution = solve_dual(q_reward.cuda(), q_cost.cuda(), kl_bound=kl_bound, cost_threshold=threshold.cuda())
    assert solution.weights.is_cuda
    assert solution.multipliers.is_cuda
    torch.testing.assert_close(solution.weights.cpu(), weights, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------ faults of other implementations


def test_the_price_is_subtracted_once() -> None:
    """Weights of Q_r - 2 lambda Q_c (subtracted again through an alias) are another optimum."""
    q_reward, q_cost, kl_bound, threshold, weights = built(36, 1.3, (0.8,))
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    alias = q_reward.clone()
    alias -= 0.8 * q_cost[0]
    twice = boltzmann_weights(alias, q_cost, 1.3, solution.multipliers)
    assert float(expected(twice, q_cost[0])) < float(threshold) - 0.05
    assert float(kl_to_uniform(twice)) > 1.2 * kl_bound
    torch.testing.assert_close(solution.weights, weights, rtol=1e-6, atol=1e-9)
    assert float(expected(solution.weights, q_cost[0])) == pytest.approx(float(threshold), abs=1e-8)


def test_one_gradient_step_on_the_dual_is_no_solution() -> None:
    q_reward, q_cost, kl_bound, threshold, _ = built(37, 1.3, (0.8,))
    point = torch.tensor([0.5, 0.1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([point], lr=0.02)
    value = dual_value(q_reward, q_cost, point[0], point[1:], kl_bound=kl_bound, cost_threshold=threshold)
    value.backward()
    optimiser.step()
    stepped = boltzmann_weights(q_reward, q_cost, point[0].detach(), point[1:].detach())
    assert float(kl_to_uniform(stepped)) > 1.5 * kl_bound
    assert float(expected(stepped, q_cost[0])) > float(threshold) + 0.05
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold)
    assert_optimal(solution, q_reward, q_cost, kl_bound, threshold)


# ------------------------------------------------------------------ bad input

NAN = math.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_bound": 0.0}, r"kl_bound must be .* > 0, got 0"),
        ({"kl_bound": -0.1}, r"kl_bound must be .* > 0, got -0.1"),
        ({"kl_bound": NAN}, "kl_bound must be .* got nan"),
        ({"kl_bound": INF}, "kl_bound must be .* got inf"),
        ({"cost_threshold": thresholds(NAN)}, r"cost_threshold must be .* got \[nan\]"),
        ({"cost_threshold": thresholds(-INF)}, r"cost_threshold must be .* got \[-inf\]"),
        ({"cost_threshold": thresholds(0.0, 1.0)}, r"cost_threshold .* \[1\].* got \[2\]"),
        ({"cost_threshold": torch.tensor(0.0)}, r"cost_threshold .* \[1\].* got \[\]"),
        ({"q_cost": torch.zeros(8, 6)}, r"q_cost .* \[C, 8, 6\].* got .* \[8, 6\]"),
        ({"q_cost": torch.zeros(1, 8, 5)}, r"q_cost .* \[C, 8, 6\].* got .* \[1, 8, 5\]"),
        ({"q_reward": torch.zeros(8)}, r"q_reward .* \[B, N\].* got .* \[8\]"),
        ({"q_reward": torch.zeros(8, 0)}, r"q_reward .* N >= 1, got .* \[8, 0\]"),
        ({"q_reward": torch.zeros(8, 6, dtype=torch.int64)}, "q_reward .* got torch.int64"),
        ({"q_reward": torch.full((8, 6), NAN)}, "q_reward must be finite, got 48 .* nan"),
        ({"q_cost": torch.full((1, 8, 6), INF)}, "q_cost must be finite, got 48 .* inf"),
        ({"multiplier_max": 0.0}, "multiplier_max must be None or .* > 0, got 0"),
        ({"multiplier_max": NAN}, "multiplier_max must be None or .* > 0, got nan"),
    ],
)
def test_bad_input_is_named(changes: dict[str, object], message: str) -> None:
    q_reward, q_cost = draw(38)
    arguments: dict[str, object] = {
        "q_reward": q_reward,
        "q_cost": q_cost,
        "kl_bound": 0.1,
        "cost_threshold": thresholds(0.0),
    }
    with pytest.raises(ValueError, match=message):
        solve_dual(**(arguments | changes))


def test_a_single_bad_entry_is_found() -> None:
    q_reward, q_cost = draw(40)
    q_cost[0, 3, 2] = NAN
    with pytest.raises(ValueError, match="q_cost must be finite, got 1 entries such as nan"):
        solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=thresholds(INF))
