"""The paper-compatible solver is near the exact one where SLSQP converges, and says where it does not."""

import pytest
import torch

from fsrl_ext.functional.estep import dual_value, solve_dual
from fsrl_ext.functional.estep.slsqp import solve_dual_slsqp


def problem(seed, threshold, costs=1):
    generator = torch.Generator().manual_seed(seed)
    q_reward = torch.randn(64, 16, generator=generator)
    q_cost = torch.rand(costs, 64, 16, generator=generator)
    return q_reward, q_cost, torch.full((costs,), threshold, dtype=torch.float64)


@pytest.mark.parametrize("threshold", [0.9, 0.48])
@pytest.mark.parametrize("costs", [1, 2])
def test_near_the_exact_dual(threshold, costs):
    for seed in range(5):
        q_reward, q_cost, d = problem(seed, threshold, costs)
        settings = {"kl_bound": 0.1, "cost_threshold": d}
        exact = solve_dual(q_reward, q_cost, **settings)
        solution = solve_dual_slsqp(q_reward, q_cost, **settings)
        assert solution.status == exact.status
        values = [
            float(dual_value(q_reward.double(), q_cost.double(), s.temperature, s.multipliers, **settings))
            for s in (exact, solution)
        ]
        assert values[0] <= values[1] + 1e-9  # nothing is below the minimum
        assert values[1] <= values[0] + 0.02


def test_weights_belong_to_the_duals_and_kl_is_theirs():
    q_reward, q_cost, d = problem(0, 0.48)
    solution = solve_dual_slsqp(q_reward, q_cost, kl_bound=0.1, cost_threshold=d)
    z = (q_reward - solution.multipliers[0] * q_cost[0]) / solution.temperature
    torch.testing.assert_close(solution.weights, torch.softmax(z, -1).float())
    expected = (solution.weights * q_cost[0]).sum(-1).mean().double()
    torch.testing.assert_close(solution.expected_cost[0], expected, rtol=1e-5, atol=0)


def test_infeasible_batches_break_the_trust_region_and_say_so():
    """The exact solver keeps the trust region on the same batch."""
    q_reward, q_cost, d = problem(0, 0.05)
    settings = {"kl_bound": 0.1, "cost_threshold": d}
    solution = solve_dual_slsqp(q_reward, q_cost, **settings)
    assert solution.status == "infeasible"
    assert solution.kl > 0.11
    assert solve_dual(q_reward, q_cost, **settings).kl <= 0.1 * (1 + 1e-6)


def test_no_limit_is_no_constraint():
    q_reward, q_cost, d = problem(0, float("inf"))
    solution = solve_dual_slsqp(q_reward, q_cost, kl_bound=0.1, cost_threshold=d)
    assert solution.status == "slack"
    assert torch.isfinite(solution.weights).all()
    assert float(solution.multipliers) <= 1.0


def test_a_warm_start_is_used():
    q_reward, q_cost, d = problem(0, 0.48)
    settings = {"kl_bound": 0.1, "cost_threshold": d}
    exact = solve_dual(q_reward, q_cost, **settings)
    warm = solve_dual_slsqp(
        q_reward, q_cost, **settings, start=(exact.temperature, *exact.multipliers.tolist())
    )
    assert warm.num_steps <= solve_dual_slsqp(q_reward, q_cost, **settings).num_steps
    assert warm.temperature == pytest.approx(exact.temperature, rel=0.05)
