"""CPO and Meta-CPO with the conic backend, and with convex sets of one's own."""

import cvxpy as cp
import pytest
import torch
from toys import meta
from toys.policies import build, tensors
from toys.training import collect, collector_for, update

TARGETS = (0.3, 0.7)


def half_of_the_trust_region(step):
    return [cp.norm(step.coordinates) <= 0.5]


def updated(**settings):
    policy = build("cpo", cost_limit=4.0, cg_iterations=30, **settings)
    collector = collector_for(policy)
    torch.manual_seed(0)
    for _ in range(2):
        collect(policy, collector)
        stats = update(policy, collector, 2)
    return policy, stats.metrics


def test_both_backends_take_the_same_steps_of_cpo():
    exact, metrics = updated()
    conic, same = updated(step_backend="cvxpylayers")
    assert metrics["step/fraction"] > 0
    for name, value in tensors(exact).items():
        torch.testing.assert_close(tensors(conic)[name], value, rtol=1e-3, atol=1e-5)
    assert same["constraint/multiplier"] == pytest.approx(
        metrics["constraint/multiplier"], rel=1e-3, abs=1e-6
    )


def test_a_convex_set_of_ones_own_shortens_the_steps_of_cpo():
    _, whole = updated(step_backend="cvxpylayers")
    _, half = updated(step_backend="cvxpylayers", extra_constraints=half_of_the_trust_region)
    assert whole["step/kl_relative"] > 0.5
    assert 0.0 < half["step/kl_relative"] < 0.35  # a quarter, as far as the divergence is quadratic


def test_both_backends_take_the_same_meta_step():
    policies = [meta.build(cost_limit=5.2, step_backend=x) for x in ("exact", "cvxpylayers")]
    for policy in policies:
        torch.manual_seed(0)
        metrics = meta.iterate(policy, meta.collector_for(policy), TARGETS)
        assert metrics["meta/fraction"] > 0
    start = meta.theta(meta.build())
    exact, conic = (meta.theta(policy) for policy in policies)
    # The critics' fits amplify what is left of the solver's error after the inner steps.
    assert (conic - exact).norm() < 2e-3 * (exact - start).norm()


def test_a_convex_set_holds_in_inner_steps_and_meta_steps():
    start = meta.theta(meta.build())
    moved = {}
    for sets in (None, half_of_the_trust_region):
        policy = meta.build(cost_limit=9.0, step_backend="cvxpylayers", extra_constraints=sets)
        torch.manual_seed(0)
        metrics = meta.iterate(policy, meta.collector_for(policy), TARGETS)
        moved[sets] = metrics["meta/kl"]
        assert not torch.equal(meta.theta(policy), start)
    assert moved[half_of_the_trust_region] < 0.4 * moved[None]


@pytest.mark.parametrize("make", [lambda **x: build("cpo", **x), meta.build])
def test_sets_without_the_backend_that_takes_them_are_refused(make):
    with pytest.raises(ValueError, match="step_backend='cvxpylayers', got step_backend='exact'"):
        make(extra_constraints=half_of_the_trust_region)
    with pytest.raises(ValueError, match="step_backend must be one of"):
        make(step_backend="ecos")
