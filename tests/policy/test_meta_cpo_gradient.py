"""The gradients of a meta-step: exact, first-order, Reptile, and the constrained step on them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from toys.meta import acting, adapt, build, collector_for, finish, theta

from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.meta_gradient import inner_step, meta_gradient, replay, surrogate_gradients
from fsrl_ext.policy.meta_adaptation import MovingFisher
from fsrl_ext.policy.onpolicy.trust_region import surrogate_loss

TARGETS = (0.3, 0.7)


class DoubleObservations(nn.Module):
    """Gives the observations of a normaliser in float64."""

    def __init__(self, normaliser):
        super().__init__()
        self.normaliser = normaliser

    def forward(self, obs):
        return self.normaliser(obs).double()


def as_double(policy):
    """Return the policy with networks and observations in float64."""
    policy.double()
    policy.normaliser = DoubleObservations(policy.normaliser)
    return policy


def loss_of(policy, rollout):
    """Return the surrogates of a rollout: standardised advantages of the reward, centred ones of the cost."""
    advantages = rollout.advantages - rollout.advantages.mean(0)
    reward = advantages[:, 0] / (advantages[:, 0].std(correction=0) + 1e-8)
    return surrogate_loss(policy.actor, rollout, reward, advantages[:, 1:].T)


@pytest.mark.parametrize("metric", ["fisher", "euclidean"])
@pytest.mark.parametrize("limit", [5.5, 4.5, 9.0])
def test_exact_gradient_is_that_of_adapting_again(metric, limit):
    """Central differences of the adapted surrogates in theta agree, along random directions."""
    # Few conjugate gradient iterations would make H^-1 depend on what it is multiplied with.
    policy = as_double(build(metric=metric, cost_limit=limit, cg_iterations=60, hidden=(4,)))
    collector = collector_for(policy, steps=100)
    adapt(policy, collector, 0.9, record=True)
    finish(policy, collector)
    record, start = policy.finished[0], theta(policy)
    assert start.dtype == torch.float64
    assert all(step.fraction > 0 for step in record.steps)

    def adapted(at):
        again = replay(at, record.steps, limit_gradient=policy.config.limit_gradient).detach()
        reward, costs = record.finished.loss(again)
        return torch.cat([reward[None], costs]).detach()

    torch.manual_seed(1)
    for _ in range(3):
        direction = torch.nn.functional.normalize(torch.randn_like(start), dim=0)
        h = 1e-5
        expected = (adapted(start + h * direction) - adapted(start - h * direction)) / (2 * h)
        slopes = record.finished.gradients @ direction
        torch.testing.assert_close(slopes, expected, rtol=2e-4, atol=1e-7)
    first = surrogate_gradients(record.finished.loss, record.steps[-1].adapted)[0]
    assert (record.finished.gradients[0] - first).norm() > 1e-2 * first.norm()
    if metric == "fisher":  # a gradient that ignores how the metric moves is another one
        stays = [dataclasses.replace(step, metric=None) for step in record.steps]
        frozen = meta_gradient(first[None], stays).gradients[0]
        assert (record.finished.gradients[0] - frozen).norm() > 1e-2 * first.norm()


def test_steps_from_elsewhere_are_as_long_as_steps_from_there():
    """A step that is taken again from other meta-parameters has the length that the metric there gives it.

    With the metric of the recorded adaptation the step may be many times as long: the inverse of that metric
    multiplies whatever lies outside of its range by one over the damping.
    """
    policy = as_double(
        build(metric="fisher", cost_limit=1e9, kl_bound=0.01, cg_iterations=60, cg_damping=1e-4)
    )
    collector = collector_for(policy)
    adapt(policy, collector, 0.9, record=True)
    finish(policy, collector)
    record = policy.finished[0]
    torch.manual_seed(0)
    start = record.steps[0].parameters
    away = start + 0.5 * torch.randn_like(start)
    step, metric = record.steps[0], record.steps[0].metric
    once = dataclasses.replace(step, fraction=1.0)

    def divergence(moved):
        return float(metric.form(away, moved, moved).detach() + 1e-4 * moved @ moved) / 2

    assert divergence(replay(away, [once]) - away) == pytest.approx(0.01, rel=1e-3)
    frozen = dataclasses.replace(once, metric=None)
    assert divergence(replay(away, [frozen]) - away) != pytest.approx(0.01, rel=0.3)


def test_the_moving_metric_is_the_fisher_matrix():
    policy = as_double(build(metric="fisher", cg_iterations=60, cg_damping=0.0, fisher_fraction=0.5))
    collector = collector_for(policy)
    adapt(policy, collector, 0.7, record=True)
    rollout = policy.record.rollouts[0]
    metric = MovingFisher(policy.actor, [rollout], policy.config)
    phi = policy.record.steps[0].parameters
    matvec = metric.inverse(phi).matvec
    torch.manual_seed(0)
    u, w = torch.randn(2, len(phi), dtype=torch.float64)
    assert float(metric.form(phi, u, w).detach()) == pytest.approx(float(u @ matvec(w)), rel=1e-9)
    # Its derivative in phi agrees with central differences.
    leaf = phi.clone().requires_grad_()
    (slope,) = torch.autograd.grad(metric.form(leaf, u, w), leaf)
    direction, h = torch.randn_like(phi), 1e-5
    ends = [float(u @ metric.inverse(phi + s * h * direction).matvec(w)) for s in (1, -1)]
    assert float(slope @ direction) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("mode", ["first_order", "reptile"])
def test_the_cheap_gradients_are_what_their_names_say(mode):
    policy = build(meta_gradient=mode)
    collector = collector_for(policy)
    adapt(policy, collector, 0.7, record=True)
    phi = acting(policy)
    finish(policy, collector)
    record = policy.finished[0]
    g, a, _ = surrogate_gradients(record.finished.loss, phi)
    expected = g if mode == "first_order" else theta(policy) - phi
    torch.testing.assert_close(record.finished.gradients[0], expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(record.finished.gradients[1:], a)
    assert math.isnan(record.finished.cosine)


def test_what_is_kept_survives_that_the_acting_copy_moves_on():
    """The meta-gradient of recorded steps equals that of steps that are built from the data again."""
    policy = build(metric="fisher")
    collector = collector_for(policy)
    adapt(policy, collector, 0.7, record=True)
    steps, rollouts = list(policy.record.steps), list(policy.record.rollouts)
    finish(policy, collector)
    record = policy.finished[0]
    cotangents = surrogate_gradients(record.finished.loss, steps[-1].adapted)[0][None]
    recorded = meta_gradient(cotangents, steps).gradients
    # Other tasks and a step of the meta-policy follow.
    adapt(policy, collector, 0.2, record=True, seed=50)
    finish(policy, collector)
    policy.meta_step()
    assert torch.equal(meta_gradient(cotangents, steps).gradients, recorded)
    rebuilt = []
    for step, rollout in zip(steps, rollouts, strict=True):
        torch.nn.utils.vector_to_parameters(step.parameters, policy.actor.parameters())
        with torch.no_grad():
            (mean, std), _ = policy.actor(rollout.obs)
        assert torch.equal(mean, rollout.dist.mean)
        assert torch.equal(std, rollout.dist.std)
        loss = loss_of(policy, rollout)
        metric = MovingFisher(policy.actor, [rollout], policy.config)
        made = inner_step(step.parameters, loss, step.surplus, kl_bound=policy.config.kl_bound, metric=metric)
        torch.testing.assert_close(made.step.step, step.step.step)
        rebuilt.append(dataclasses.replace(made, fraction=step.fraction))
    torch.testing.assert_close(meta_gradient(cotangents, rebuilt).gradients, recorded, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("outer", ["mean", "each"])
@pytest.mark.parametrize("inner_steps", [0, 2])
def test_the_meta_step_is_the_constrained_step_on_the_tasks_together(outer, inner_steps):
    policy = build(inner_steps=inner_steps, outer_constraint=outer, outer_kl_bound=0.02, cost_limit=5.2)
    collector = collector_for(policy)
    for i, target in enumerate(TARGETS):
        adapt(policy, collector, target, record=True, seed=100 * i)
        finish(policy, collector)
    records, start = list(policy.finished), theta(policy)
    fisher = MovingFisher(policy.meta_actor, [x.first for x in records], policy.config)
    metric = fisher.inverse(start)
    outcomes = [x.finished for x in records]
    g = sum(x.gradients[0] for x in outcomes) / 2
    a, b = torch.cat([x.gradients[1:] for x in outcomes]), torch.cat([x.surplus for x in outcomes])
    if outer == "mean":
        a, b = a.mean(0, keepdim=True), b.mean(0, keepdim=True)
    step = constrained_step(g, a, b, kl_bound=0.02, inverse_metric=metric)
    metrics = policy.meta_step()
    assert metrics["meta/kl"] <= 0.02
    assert metrics["meta/fraction"] > 0
    torch.testing.assert_close(
        theta(policy) - start, metrics["meta/fraction"] * step.step, rtol=1e-3, atol=1e-6
    )
    names = ["constraint/multiplier"]
    if outer == "each":
        names = ["constraint/multiplier_0", "constraint/multiplier_1"]
    assert [metrics[name] for name in names] == pytest.approx(step.multipliers.tolist(), rel=1e-3, abs=1e-6)
    costs = [float(x.episode_cost[0]) for x in outcomes]
    assert metrics["constraint/episode_cost"] == pytest.approx(np.mean(costs))
