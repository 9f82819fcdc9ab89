"""The E-step over all discrete actions: the divergence is measured from the old policy's probabilities."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fsrl_ext.functional.estep import (
    boltzmann_weights,
    dual_gradient,
    dual_value,
    kkt_residual,
    kl_to_prior,
    kl_to_uniform,
    largest_reduction,
    solve_dual,
    solve_dual_slsqp,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def draw(seed, num_states=6, num_actions=4, num_costs=1, peak=1.5):
    """Return Q-values of reward and costs, and log probabilities of the actions; all float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_states, num_actions)
    q_reward = torch.randn(shape, generator=generator, dtype=torch.float64)
    q_cost = torch.randn((num_costs, *shape), generator=generator, dtype=torch.float64)
    prior = (peak * torch.randn(shape, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return q_reward, q_cost, prior


def expected(weights, q):
    return (weights * q).sum(-1).mean(-1)


@pytest.mark.parametrize("multipliers", [(), (0.0,), (0.8,), (0.7, 0.0, 2.0)])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_finds_the_optimum_that_a_problem_was_built_from(multipliers, temperature):
    q_reward, q_cost, prior = draw(0, num_costs=len(multipliers))
    price = torch.tensor(multipliers, dtype=torch.float64)
    weights = boltzmann_weights(q_reward, q_cost, temperature, price, prior)
    torch.testing.assert_close(
        weights, torch.softmax((q_reward - torch.tensordot(price, q_cost, 1)) / temperature + prior, -1)
    )
    kl_bound = float(kl_to_prior(weights, prior))
    threshold = expected(weights, q_cost) + torch.where(price > 0, 0.0, 0.3)
    solution = solve_dual(q_reward, q_cost, kl_bound=kl_bound, cost_threshold=threshold, log_prior=prior)
    assert solution.status == ("active" if any(multipliers) else "slack")
    assert solution.temperature == pytest.approx(temperature, rel=1e-6)
    torch.testing.assert_close(solution.multipliers, price, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(solution.weights, weights, rtol=1e-6, atol=1e-9)
    assert solution.kl == pytest.approx(kl_bound, rel=1e-8)
    assert solution.kkt_residual < 1e-7


def test_a_prior_in_whole_parts_is_that_many_samples_of_each_action():
    """Actions that were sampled k times of n are a prior of k / n for each action."""
    q_reward, q_cost, _ = draw(1, num_actions=3, num_costs=2)
    counts = torch.tensor([1, 2, 5])
    sampled = [x.repeat_interleave(counts, -1) for x in (q_reward, q_cost)]
    threshold = sampled[1].mean((1, 2)) - 0.1
    many = solve_dual(*sampled, kl_bound=0.1, cost_threshold=threshold)
    prior = (counts / 8).double().log().expand(6, 3)
    one = solve_dual(q_reward, q_cost, kl_bound=0.1, cost_threshold=threshold, log_prior=prior)
    assert one.status == many.status == "active"
    summed = torch.zeros(6, 3, dtype=torch.float64).index_add(
        1, torch.arange(3).repeat_interleave(counts), many.weights
    )
    torch.testing.assert_close(one.weights, summed, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(one.multipliers, many.multipliers, rtol=1e-6, atol=1e-9)
    assert one.temperature == pytest.approx(many.temperature, rel=1e-6)
    torch.testing.assert_close(
        largest_reduction(q_cost, 0.1, prior), largest_reduction(sampled[1], 0.1), rtol=1e-10, atol=0
    )


def test_a_uniform_prior_is_no_prior():
    q_reward, q_cost, _ = draw(2)
    threshold = torch.tensor([-0.2], dtype=torch.float64)
    problem = {"kl_bound": 0.05, "cost_threshold": threshold}
    uniform = torch.full_like(q_reward, -math.log(4))
    plain = solve_dual(q_reward, q_cost, **problem)
    prior = solve_dual(q_reward, q_cost, **problem, log_prior=uniform)
    torch.testing.assert_close(plain.weights, prior.weights, rtol=1e-9, atol=1e-12)
    assert float(kl_to_prior(plain.weights, uniform)) == pytest.approx(float(kl_to_uniform(plain.weights)))


@pytest.mark.parametrize("num_costs", [1, 2])
def test_the_dual_and_its_minimum_are_those_of_scipy(num_costs):
    q_reward, q_cost, prior = draw(3, num_costs=num_costs)
    threshold = expected(prior.exp(), q_cost) - 0.1 / num_costs
    problem = {"kl_bound": 0.1, "cost_threshold": threshold, "log_prior": prior}

    def value(x):
        point = torch.tensor(x)
        return float(dual_value(q_reward, q_cost, point[0], point[1:], **problem))

    point = torch.tensor([0.7, 0.4, 1.3][: 1 + num_costs], dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(
        lambda x: dual_value(q_reward, q_cost, x[0], x[1:], **problem), point
    )
    torch.testing.assert_close(dual_gradient(q_reward, q_cost, point[0], point[1:], **problem), gradient)
    minimum = minimize(
        value, point.numpy(), bounds=[(1e-6, None)] + [(0, None)] * num_costs, method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9},
    )  # fmt: skip
    solution = solve_dual(q_reward, q_cost, **problem)
    ours = value([solution.temperature, *solution.multipliers.tolist()])
    assert ours == pytest.approx(minimum.fun, rel=1e-7)
    assert ours <= minimum.fun + 1e-7
    assert float(expected(solution.weights, q_reward)) == pytest.approx(ours, rel=1e-7)
    rough = solve_dual_slsqp(q_reward, q_cost, **problem)
    torch.testing.assert_close(rough.weights, solution.weights, atol=0.1, rtol=0)
    assert float(kl_to_prior(rough.weights, prior)) == pytest.approx(rough.kl)


@pytest.mark.parametrize("seed", range(6))
def test_several_costs_match_a_conic_solver(seed):
    cp = pytest.importorskip("cvxpy")
    q_reward, q_cost, log_prior = draw(seed, num_states=4, num_costs=2)
    reward, costs, prior = (x.numpy() for x in (q_reward, q_cost, log_prior.exp()))
    std = np.sqrt([(prior * (c - (prior * c).sum(1).mean()) ** 2).sum(1).mean() for c in costs])
    level = (-0.15, -1.2)[seed % 2]
    threshold = (prior * costs).sum(2).mean(1) + level
    q = cp.Variable(reward.shape, nonneg=True)
    ball = [cp.sum(q, axis=1) == 1, cp.sum(cp.rel_entr(q, prior)) <= 4 * 0.15]
    excess = [(cp.sum(cp.multiply(q, c)) / 4 - d) / s for c, d, s in zip(costs, threshold, std, strict=True)]
    worst = cp.Problem(cp.Minimize(cp.max(cp.hstack(excess))), ball)
    worst.solve(solver="CLARABEL")
    solution = solve_dual(
        q_reward, q_cost, kl_bound=0.15, cost_threshold=torch.from_numpy(threshold), log_prior=log_prior
    )
    cost = expected(solution.weights, q_cost).numpy()
    assert (solution.status == "infeasible") == (worst.value > 0)
    if worst.value > 0:
        assert np.max((cost - threshold) / std) == pytest.approx(worst.value, abs=2e-6)
    else:
        best = cp.Problem(cp.Maximize(cp.sum(cp.multiply(q, reward)) / 4), [*ball, *(e <= 0 for e in excess)])
        best.solve(solver="CLARABEL")
        assert float(expected(solution.weights, q_reward)) == pytest.approx(best.value, abs=2e-6)
    assert solution.kkt_residual < 1e-6


@pytest.mark.parametrize("peak", [0.1, 3.0, 10.0, 40.0])
def test_near_and_far_from_uniform_the_answer_is_certified(peak):
    """A policy that is nearly deterministic gives probabilities down to those that float32 cannot hold."""
    seen = set()
    for seed in range(40):
        q_reward, q_cost, prior = draw(seed, num_costs=1 + seed % 2, peak=peak)
        q_reward, q_cost, prior = q_reward.float(), q_cost.float(), prior.float()
        shift = (0.05, -0.05, -1.0)[seed % 3]
        threshold = expected(prior.double().exp(), q_cost.double()) + shift
        solution = solve_dual(q_reward, q_cost, kl_bound=0.05, cost_threshold=threshold, log_prior=prior)
        seen.add(solution.status)
        residual = kkt_residual(
            q_reward, q_cost, solution, kl_bound=0.05, cost_threshold=threshold, log_prior=prior
        )
        assert residual < 1e-4, seed
        assert solution.kl <= 0.05 * (1 + 1e-6), seed
        assert torch.isfinite(solution.weights).all()
        torch.testing.assert_close(solution.weights.sum(-1), torch.ones(6))
    assert {"active", "infeasible"} <= seen


def test_a_flat_reward_leaves_the_prior_as_it_is():
    _, q_cost, prior = draw(5)
    flat = torch.ones(6, 4, dtype=torch.float64)
    mean = float(expected(prior.exp(), q_cost)[0])
    problem = {"kl_bound": 0.1, "cost_threshold": torch.tensor([mean + 0.1], dtype=torch.float64)}
    solution = solve_dual(flat, q_cost, **problem, log_prior=prior)
    assert solution.status == "flat"
    torch.testing.assert_close(solution.weights, prior.exp(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (torch.zeros(6, 4), r"log_prior must have probabilities that sum to 1, got the sum 4"),
        (torch.zeros(6, 3), r"log_prior must be a floating-point tensor like q_reward \[6, 4\].*\[6, 3\]"),
        (torch.zeros(6, 4, dtype=int), r"log_prior must be a floating-point tensor .*got torch.int64"),
        (torch.full((6, 4), math.nan), r"log_prior must have probabilities that sum to 1, got the sum nan"),
    ],
)
def test_priors_that_cannot_be_used_are_named(prior, message):
    q_reward, q_cost, _ = draw(6)
    for solve in (solve_dual, solve_dual_slsqp):
        with pytest.raises(ValueError, match=message):
            solve(q_reward, q_cost, kl_bound=0.1, cost_threshold=torch.zeros(1), log_prior=prior)
