"""The meta-gradient of a small Gaussian policy against finite differences and unrolled autograd.

The unrolled references do not use the library's step: they write the closed form in plain tensors and take
its derivative by autograd or by central differences.
"""

from __future__ import annotations

import dataclasses
import math

import cvxpy as cp
import pytest
import torch
from torch import nn
from torch.func import functional_call

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.conjugate_gradient import (
    FisherVectorProduct,
    InverseMetric,
    conjugate_gradient,
    flatten,
    unflatten,
)
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.meta_gradient import inner_step, meta_gradient, replay, surrogate_gradients
from fsrl_ext.functional.trust_region import Surrogates, line_search

KL_BOUND, ROWS, OBS, ACT = 0.01, 64, 3, 2
# A rejected step is among them; the limits make the cases what they are.
SURPLUS = (-1.0, "active", "active", 1.0)
FRACTIONS = (0.8, 0.64, 0.0, 1.0)
CASES = ["inactive", "active", "active", "recovery"]


class Policy(nn.Module):
    """A policy with a tanh body and a log standard deviation that is the same in all states."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(OBS, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, ACT))
        self.log_std = nn.Parameter(torch.full((ACT,), -0.5))

    def forward(self, obs):
        mean = self.body(obs)
        return torch.distributions.Normal(mean, self.log_std.exp().expand_as(mean))


class Task:
    """Surrogates on data drawn at ``phi_old`` and fixed afterwards."""

    def __init__(self, policy, phi_old, seed):
        self.policy, self.names = policy, dict(policy.named_parameters())
        rng = torch.Generator().manual_seed(seed)
        self.obs = torch.randn(ROWS, OBS, generator=rng, dtype=torch.float64)
        old = self.distribution(phi_old.detach())
        noise = torch.randn(ROWS, ACT, generator=rng, dtype=torch.float64)
        self.old, self.act = old, (old.mean + old.stddev * noise).detach()
        self.log_old = old.log_prob(self.act).sum(dim=1).detach()
        self.adv_reward = -(self.act**2).sum(dim=1) + self.obs[:, 0] * self.act[:, 0]
        self.adv_cost = self.act[:, 1] - 0.5 * self.act[:, 0] * self.obs[:, 1]
        self.adv_reward, self.adv_cost = (x - x.mean() for x in (self.adv_reward, self.adv_cost))

    def distribution(self, phi):
        return functional_call(self.policy, unflatten(phi, self.names), (self.obs,))

    def loss(self, phi):
        ratio = (self.distribution(phi).log_prob(self.act).sum(dim=1) - self.log_old).exp()
        return -(ratio * self.adv_reward).mean(), (ratio * self.adv_cost).mean()[None]

    def kl(self, phi):
        old = torch.distributions.Normal(self.old.mean.detach(), self.old.stddev.detach())
        return torch.distributions.kl_divergence(old, self.distribution(phi)).sum(dim=1).mean()

    def fisher(self, phi):
        phi = phi.detach().clone().requires_grad_()
        return FisherVectorProduct(self.kl(phi), [phi], damping=0.1)


def adapt(metric="euclidean", backend="exact"):
    """Take K = 4 steps, each with a surplus that makes its case the planned one.

    The steps get products with ``H^-1`` by conjugate gradient, and the references get the inverse itself.
    """
    torch.manual_seed(0)
    policy = Policy().double()
    theta = flatten(policy.parameters()).detach()
    phi, steps, inverses = theta, [], []
    for k, (surplus, fraction) in enumerate(zip(SURPLUS, FRACTIONS, strict=True)):
        task = Task(policy, phi, seed=k)
        g, a, _ = surrogate_gradients(task.loss, phi)
        inverse, dense = None, torch.eye(len(theta), dtype=torch.float64)
        if metric == "fisher":
            fisher = task.fisher(phi)
            inverse = InverseMetric(fisher, max_iterations=200, tolerance=1e-14)
            dense = torch.linalg.inv(torch.stack([fisher(e) for e in dense]))
        inverses.append(dense)
        u, v = dense @ g, dense @ a[0]
        q, r, s = float(g @ u), float(g @ v), float(a[0] @ v)
        if surplus == "active":
            # This lies between the free step's change of the constraint and the largest one.
            free = r * math.sqrt(2 * KL_BOUND / q)
            surplus = 0.5 * free + 0.5 * math.sqrt(2 * KL_BOUND * s)
        else:
            surplus = surplus * 1.5 * math.sqrt(2 * KL_BOUND * s)
        settings = {"kl_bound": KL_BOUND, "inverse_metric": inverse, "backend": backend}
        step = inner_step(phi, task.loss, g.new_tensor([surplus]), **settings)
        steps.append(dataclasses.replace(step, fraction=fraction))
        phi = steps[-1].adapted
    after = Task(policy, phi, seed=99)
    g, a, _ = surrogate_gradients(after.loss, phi)
    return policy, theta, steps, inverses, after, torch.cat([g[None], a])


def written_out(theta, steps, inverses, limit_gradient):
    """Adapt in plain tensors."""
    phi = theta
    for step, inverse in zip(steps, inverses, strict=True):
        if step.fraction == 0.0:
            continue
        inner = phi if phi.requires_grad else phi.clone().requires_grad_()
        f, c = step.loss(inner)
        g = torch.autograd.grad(f, inner, create_graph=True)[0]
        a = torch.autograd.grad(c[0], inner, create_graph=True)[0]
        b = step.surplus[0]
        if limit_gradient == "score":
            b = b + c[0] - float(step.loss(step.parameters)[1])
        u, v = inverse @ g, inverse @ a
        q, r, s, room = g @ u, g @ v, a @ v, 2 * KL_BOUND
        if b > 0 and b * b >= room * s:
            x = -(room / s).sqrt() * v
        elif b - r * (room / q).sqrt() <= 0:
            x = -(room / q).sqrt() * u
        else:
            w = u - r / s * v
            x = -(b / s) * v - ((room - b * b / s) / (q - r * r / s)).sqrt() * w
        phi = phi + step.fraction * x
        if not theta.requires_grad:
            phi = phi.detach()
    return phi


def relative(result, expected):
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("limit_gradient", ["score", "detach"])
@pytest.mark.parametrize("metric", ["euclidean", "fisher"])
def test_against_finite_differences_and_unrolled_autograd(metric, limit_gradient):
    policy, theta, steps, inverses, after, cotangents = adapt(metric)
    before = [p.clone() for p in policy.parameters()]
    assert [x.step.case for x in steps] == CASES
    result = meta_gradient(cotangents, steps, limit_gradient=limit_gradient)
    assert result.cases == {"inactive": 1, "active": 1, "rejected": 1, "recovery": 1}
    assert not result.corners
    assert result.gradients.shape == (2, len(theta))

    def outcome(value):
        f, c = after.loss(written_out(value, steps, inverses, limit_gradient))
        return torch.stack([f, c[0]])

    leaf = theta.clone().requires_grad_()
    unrolled = torch.autograd.functional.jacobian(outcome, leaf)
    for k in range(2):
        assert relative(result.gradients[k], unrolled[k]) < 1e-9
    differences = torch.zeros_like(result.gradients)
    for j in range(len(theta)):
        shift = torch.zeros_like(theta)
        shift[j] = 1e-4
        # The fourth order is needed: the error of the second is as large as the tolerance.
        near, far = (outcome(theta + h * shift) - outcome(theta - h * shift) for h in (1, 2))
        differences[:, j] = (8 * near - far) / (12 * 1e-4)
    for k in range(2):
        assert relative(result.gradients[k], differences[k]) < 1e-6
    assert all(torch.equal(p, q) for p, q in zip(policy.parameters(), before, strict=True))


@pytest.mark.parametrize("metric", ["euclidean", "fisher"])
def test_replay_is_the_adaptation_from_elsewhere(metric):
    _, theta, steps, inverses, _, _ = adapt(metric)
    assert torch.equal(replay(theta, steps), steps[-1].adapted)
    moved = theta + 1e-3 * torch.randn(len(theta), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        replay(moved, steps), written_out(moved, steps, inverses, "score").detach(), rtol=1e-10, atol=1e-12
    )
    leaf = theta.clone().requires_grad_()
    assert not replay(leaf, steps).requires_grad


@pytest.mark.parametrize("metric", ["euclidean", "fisher"])
def test_the_same_through_cvxpylayers(metric):
    *_, steps, _, _, cotangents = adapt(metric)
    *_, conic, _, _, _ = adapt(metric, backend="cvxpylayers")
    for step, other in zip(steps, conic, strict=True):
        assert relative(other.step.step, step.step.step) < 1e-6
    exact, result = meta_gradient(cotangents, steps), meta_gradient(cotangents, conic)
    assert result.cases == exact.cases
    for k in range(2):
        assert relative(result.gradients[k], exact.gradients[k]) < 1e-6


class Moving:
    """A dense metric that moves: ``H(phi) = I + W phi phi^T W^T``."""

    def __init__(self, size):
        self.root = torch.randn(size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def inverse(self, phi):
        along = self.root @ phi.detach()
        return torch.linalg.inv(torch.eye(len(phi)).double() + torch.outer(along, along)).mv

    def form(self, phi, u, w):
        along = self.root @ phi
        return u @ w + (along @ u) * (along @ w)


def both(task_loss):
    """Add a second constraint to the task's own."""

    def loss(x):
        f, c = task_loss(x)
        return f, torch.cat([c, (0.3 * c.sum() - f + (x**3).sum() * 0.1)[None]])

    return loss


def little_along_the_costs(step):
    return [cp.norm(step.coordinates[:2]) <= 0.6]


@pytest.mark.parametrize(
    ("backend", "extra"), [("exact", None), ("cvxpylayers", None), ("cvxpylayers", little_along_the_costs)]
)
def test_a_metric_that_moves(backend, extra):
    """The gradient is exact for two constraints, either backend, with and without an extra convex set."""
    _, theta, steps, _, after, _ = adapt()
    phi, taken, metric = theta, [], Moving(len(theta))
    settings = {"kl_bound": KL_BOUND, "metric": metric, "backend": backend, "extra_constraints": extra}
    for step, surplus in zip(steps, ([0.01, 0.01], [0.0, 0.04], [0.5, 0.6]), strict=False):
        new = inner_step(phi, both(step.loss), phi.new_tensor(surplus), **settings)
        taken.append(dataclasses.replace(new, fraction=0.7))
        phi = taken[-1].adapted
    loss = both(after.loss)
    cotangents = torch.cat([x.reshape(-1, len(phi)) for x in surrogate_gradients(loss, phi)[:2]])
    gradients = meta_gradient(cotangents, taken).gradients
    still = meta_gradient(cotangents, [dataclasses.replace(x, metric=None) for x in taken]).gradients
    assert relative(still, gradients) > 1e-3
    rng = torch.Generator().manual_seed(2)
    for _ in range(3):
        along = torch.randn(len(theta), generator=rng, dtype=torch.float64)
        ends = [theta + h * along for h in (1e-4, -1e-4, 2e-4, -2e-4)]
        f, c = zip(*(loss(replay(end, taken)) for end in ends), strict=True)
        values = torch.cat([torch.stack(f)[:, None], torch.stack(c)], dim=1).detach()
        differences = (8 * (values[0] - values[1]) - (values[2] - values[3])) / 12e-4
        torch.testing.assert_close(gradients @ along, differences, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit_gradient", ["score", "detach"])
def test_two_constraints(limit_gradient):
    """The gradient agrees with central differences of the replayed adaptation along random directions."""
    _, theta, steps, _, after, _ = adapt()

    phi, taken = theta, []
    for step, surplus in zip(steps, ([0.01, 0.01], [0.0, 0.04], [0.5, 0.6]), strict=False):
        new = inner_step(phi, both(step.loss), phi.new_tensor(surplus), kl_bound=KL_BOUND)
        taken.append(dataclasses.replace(new, fraction=0.7))
        phi = taken[-1].adapted
    assert sum(len(x.step.multipliers.nonzero()) for x in taken) >= 4
    loss = both(after.loss)
    cotangents = torch.cat([x.reshape(-1, len(phi)) for x in surrogate_gradients(loss, phi)[:2]])
    result = meta_gradient(cotangents, taken, limit_gradient=limit_gradient).gradients

    def outcome(value):
        f, c = loss(replay(value, taken, limit_gradient=limit_gradient))
        return torch.cat([f[None], c])

    rng = torch.Generator().manual_seed(2)
    for _ in range(5):
        along = torch.randn(len(theta), generator=rng, dtype=torch.float64)
        near, far = (outcome(theta + h * along) - outcome(theta - h * along) for h in (1e-5, 2e-5))
        torch.testing.assert_close(result @ along, (8 * near - far) / 12e-5, rtol=1e-6, atol=1e-7)


def test_variants():
    _, theta, steps, _, _, cotangents = adapt()
    exact = meta_gradient(cotangents, steps)
    first = meta_gradient(cotangents, steps, mode="first_order")
    assert torch.equal(first.gradients, cotangents)
    assert first.cosine.isnan().all()
    expected = torch.nn.functional.cosine_similarity(exact.gradients, cotangents)
    torch.testing.assert_close(exact.cosine, expected)
    assert (exact.cosine.abs() < 1.0 - 1e-6).all()
    reptile = meta_gradient(cotangents, steps, mode="reptile")
    moved = sum(x.fraction * x.step.step for x in steps)
    torch.testing.assert_close(reptile.gradients[0], -moved)
    assert torch.equal(reptile.gradients[1], cotangents[1])
    assert not torch.equal(
        meta_gradient(cotangents, steps, limit_gradient="detach").gradients, exact.gradients
    )
    # Where nothing was accepted, theta is phi^K.
    rejected = [dataclasses.replace(x, fraction=0.0) for x in steps]
    still = meta_gradient(cotangents, rejected)
    assert torch.equal(still.gradients, cotangents)
    assert still.cases == {"rejected": 4}
    torch.testing.assert_close(still.cosine, torch.ones(2, dtype=torch.float64))
    assert torch.equal(replay(theta, rejected), theta)


def test_the_outer_step_uses_them():
    """A constrained step on theta changes the adapted policy's surrogates as predicted, to first order."""
    _, theta, steps, _, after, cotangents = adapt()
    gradients = meta_gradient(cotangents, steps).gradients
    (g, a), radius = gradients, math.sqrt(2e-10)
    surplus = 0.5 * radius * (g @ a / g.norm() + a.norm())
    outer = constrained_step(g, a[None], surplus[None], kl_bound=0.5 * radius**2)
    assert outer.case == "active"
    f, c = after.loss(steps[-1].adapted)
    f_new, c_new = after.loss(replay(theta + outer.step, steps))
    # The prediction is about the adapted policy, not about theta.
    assert float(c_new - c) == pytest.approx(float(-surplus), rel=1e-3)
    assert float(f_new - f) == pytest.approx(outer.predicted_objective, rel=1e-3)


def test_a_line_search_sets_the_fraction_and_leaves_theta():
    policy, theta, steps, *_ = adapt()
    step, kept = steps[1], theta.clone()
    phi = step.parameters.clone()
    task = Task(policy, phi, seed=1)

    def evaluate():
        f, c = task.loss(phi)
        return Surrogates(reward=-float(f), costs=(float(c[0]),), kl=float(task.kl(phi)))

    result = line_search([phi], step.step.step, evaluate, kl_bound=1e-4, cost_slack=(math.inf,))
    assert 0.0 < result.fraction < 1.0
    taken = dataclasses.replace(step, fraction=result.fraction)
    torch.testing.assert_close(taken.adapted, phi, rtol=0.0, atol=1e-15)
    assert torch.equal(theta, kept)
    assert torch.equal(flatten(policy.parameters()).detach(), kept)


def test_scale_of_surrogates():
    """The meta-gradient does not depend on the units of reward and cost."""
    _, theta, steps, _, _, cotangents = adapt()
    plain = meta_gradient(cotangents, steps)
    for reward, cost in ((1e3, 1.0), (1.0, 1e-3)):
        phi, scaled = theta, []
        for step in steps:

            def loss(x, step=step, reward=reward, cost=cost):
                f, c = step.loss(x)
                return reward * f, cost * c

            new = inner_step(phi, loss, cost * step.surplus, kl_bound=KL_BOUND)
            scaled.append(dataclasses.replace(new, fraction=step.fraction))
            phi = scaled[-1].adapted
        torch.testing.assert_close(phi, steps[-1].adapted, rtol=1e-10, atol=1e-12)
        result = meta_gradient(cotangents, scaled)
        torch.testing.assert_close(result.gradients, plain.gradients, rtol=1e-8, atol=1e-10)


def test_corners_are_counted():
    phi = torch.zeros(2, dtype=torch.float64)
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def loss(x):
        return -(direction @ x) + (x**4).sum(), (direction @ x)[None]

    step = inner_step(phi, loss, torch.tensor([0.05], dtype=torch.float64), kl_bound=KL_BOUND)
    assert step.step.case == "degenerate"
    result = meta_gradient(torch.eye(2, dtype=torch.float64), [step])
    assert result.corners == {"flat": 1}
    # With x = -b a and b(phi) = 0.05 + a.phi the adapted first parameter does not depend on the old one.
    torch.testing.assert_close(result.gradients, torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    detached = meta_gradient(torch.eye(2, dtype=torch.float64), [step], limit_gradient="detach")
    torch.testing.assert_close(detached.gradients, torch.eye(2, dtype=torch.float64))


def test_one_product_and_one_hessian_vector_product_per_step_and_cotangent(monkeypatch):
    _, _, steps, _, _, cotangents = adapt("fisher")
    products, sweeps = [], []
    for number, step in enumerate(steps):
        # These products take no autograd, so the count below is that of the sweep alone.
        matrix = torch.stack([step.inverse_metric.matvec(e) for e in torch.eye(len(cotangents[0])).double()])

        def product(z, number=number, matrix=matrix):
            products.append(number)
            return matrix @ z

        step.inverse_metric.matvec, step.inverse_metric.max_iterations = product, 1
    original = torch.autograd.grad

    def counted(*args, **kwargs):
        sweeps.append(kwargs.get("create_graph", False))
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    meta_gradient(cotangents, steps)
    # In one iteration, conjugate gradient takes one product with H.
    assert products == [3, 3, 1, 1, 0, 0]
    # Each of three steps takes gradients of reward and cost with graph, then one product per cotangent.
    assert sweeps == [True, True, False, False] * 3


def test_refusals():
    _, theta, steps, _, _, cotangents = adapt()
    with pytest.raises(ValueError, match="mode must be one of"):
        meta_gradient(cotangents, steps, mode="second_order")
    with pytest.raises(ValueError, match="limit_gradient must be one of"):
        meta_gradient(cotangents, steps, limit_gradient="none")
    with pytest.raises(ValueError, match="steps must not be empty"):
        meta_gradient(cotangents, [])
    with pytest.raises(ValueError, match="cotangents must be"):
        meta_gradient(cotangents[0], steps)
    with pytest.raises(ValueError, match="fractions must be in"):
        meta_gradient(cotangents, [dataclasses.replace(steps[0], fraction=1.5)])
    with pytest.raises(NonFiniteError, match="cotangents"):
        meta_gradient(cotangents * math.nan, steps)
    with pytest.raises(ValueError, match="inverse_metric must be None where metric is given"):
        inner_step(
            theta, steps[0].loss, steps[0].surplus, kl_bound=0.1, inverse_metric=torch.clone, metric=torch.eye
        )
    with pytest.raises(ValueError, match="loss must return"):
        inner_step(theta, lambda x: (x, x), steps[0].surplus, kl_bound=0.1)
    with pytest.raises(NonFiniteError):
        inner_step(theta, lambda x: (x.sum() * math.nan, x[:1]), steps[0].surplus, kl_bound=0.1)
    with pytest.raises(ValueError, match="flat must have shape"):
        unflatten(theta[1:], {"all": theta})


def test_inverse_metric_records():
    matrix = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    inverse = InverseMetric(matrix.mv, max_iterations=3, tolerance=1e-10)
    z = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(inverse(z), z / matrix.diagonal())
    assert inverse.worst_residual < 1e-10
    inverse.max_iterations = 1
    rough = inverse(z)
    assert inverse.worst_residual == pytest.approx(
        conjugate_gradient(matrix.mv, z, max_iterations=1).residual
    )
    assert inverse.worst_residual > 0.1
    assert torch.isfinite(rough).all()
    # The worst residual stays, however good the calls that follow.
    worst, inverse.max_iterations = inverse.worst_residual, 3
    inverse(z)
    assert inverse.worst_residual == worst
