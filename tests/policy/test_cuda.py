"""Policies on an accelerator; the tests are skipped where there is none."""

import math
import warnings

import pytest
import torch
from tianshou.policy.base import policy_within_training_step
from toys import meta as meta_learners
from toys.policies import build_cvpo as build
from toys.policies import tensors
from toys.training import collected

from fsrl_ext.functional.estep import solve_dual
from fsrl_ext.functional.estep.slsqp import solve_dual_slsqp
from fsrl_ext.net.values import reduce_reward

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("solver", ["exact", "slsqp"])
@pytest.mark.parametrize("old_policy", ["frozen", "polyak"])
def test_learns_on_the_device(solver, old_policy):
    policy = build(device="cuda", solver=solver, old_policy=old_policy)
    collector = collected(policy)
    before = [p.clone() for p in policy.actor.parameters()]
    with policy_within_training_step(policy):
        for _ in range(5):
            stats = policy.update(64, collector.buffer)
    assert all(p.is_cuda for p in tensors(policy).values())
    assert not any(torch.equal(a, b) for a, b in zip(before, policy.actor.parameters(), strict=True))
    assert all(torch.isfinite(torch.tensor(list(stats.metrics.values()))))


def test_the_host_waits_once_for_a_gradient_step():
    policy = build(device="cuda")
    collector = collected(policy)
    with policy_within_training_step(policy):
        policy.update(64, collector.buffer)  # the first one begins a cycle
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                policy.update(64, collector.buffer)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(w.message) for w in caught if "synchroniz" in str(w.message)]
    assert len(waits) <= 1, waits


def test_learn_agrees_with_the_cpu():
    """The same batch, parameters and noise give the same weights."""
    cpu, gpu = build(), build(device="cuda")
    gpu.load_state_dict(cpu.state_dict())
    buffer = collected(cpu).buffer
    obs = torch.as_tensor(buffer.obs[:64])
    noise = torch.randn(64, 16, 1)
    values = []
    for policy, device in ((cpu, "cpu"), (gpu, "cuda")):
        (mean, scale), _ = policy.old_actor(obs.to(device))
        actions = mean[:, None] + scale[:, None] * noise.to(device)
        with torch.no_grad():
            q = policy.target_critic(obs.to(device), actions.clamp(-1, 1))
            solution = solve_dual(
                reduce_reward(q.reward),
                policy.config.reduce_cost(q),
                kl_bound=0.1,
                cost_threshold=policy.cost_threshold.to(device),
            )
        values.append(solution.weights.cpu())
        assert solution.weights.device.type == device
    torch.testing.assert_close(*values, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("solver", [solve_dual, solve_dual_slsqp])
def test_solvers_keep_the_device(solver):
    q_reward = torch.randn(32, 8, device="cuda")
    q_cost = torch.rand(1, 32, 8, device="cuda")
    threshold = torch.tensor([0.45], dtype=torch.float64, device="cuda")
    solution = solver(q_reward, q_cost, kl_bound=0.1, cost_threshold=threshold)
    assert solution.weights.is_cuda
    assert solution.expected_cost.is_cuda
    on_cpu = solver(q_reward.cpu(), q_cost.cpu(), kl_bound=0.1, cost_threshold=threshold.cpu())
    torch.testing.assert_close(solution.weights.cpu(), on_cpu.weights, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
@pytest.mark.parametrize("metric", ["fisher", "euclidean"])
def test_a_meta_policy_adapts_and_learns_on_the_device(metric, optimiser):
    policy = meta_learners.build(device="cuda", metric=metric, optimiser=optimiser)
    collector, start = meta_learners.collector_for(policy), meta_learners.theta(policy)
    metrics = meta_learners.iterate(policy, collector, (0.3, 0.7))
    assert all(v.is_cuda for v in tensors(policy).values())
    assert all(math.isfinite(x) for x in metrics.values())
    assert metrics["meta/fraction"] > 0
    assert not torch.equal(meta_learners.theta(policy), start)
