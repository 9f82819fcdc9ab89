"""The step's vector-Jacobian product against finite differences and a formula by hand, and its corners."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from fsrl_ext.functional.constrained_step import constrained_step


def draw(rng, metric="dense"):
    size, m = int(rng.integers(3, 7)), int(rng.integers(1, 4))
    root = torch.tensor(rng.standard_normal((size, size)))
    inverse = root @ root.T + 0.1 * torch.eye(size)
    kl_bound = 10.0 ** rng.uniform(-2, 0)
    if metric == "euclidean":
        inverse = torch.eye(size, dtype=torch.float64)
    g, a = torch.tensor(rng.standard_normal(size)), torch.tensor(rng.standard_normal((m, size)))
    reach = (2 * kl_bound * torch.einsum("ip,pq,iq->i", a, inverse, a)).sqrt()
    b = torch.tensor(rng.uniform(-1.2, 1.2, m)) * reach
    return (
        g,
        a,
        b,
        {
            "kl_bound": kl_bound,
            "inverse_metric": None if metric == "euclidean" else inverse.mv,
        },
    )


def check(problem, settings, varied=(0, 1, 2)):
    def step(*values):
        whole = list(problem)
        for k, value in zip(varied, values, strict=True):
            whole[k] = value
        return constrained_step(*whole, **settings).step

    leaves = [problem[k].clone().requires_grad_() for k in varied]
    assert torch.autograd.gradcheck(step, leaves, eps=1e-7, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("metric", ["dense", "euclidean"])
def test_against_finite_differences(metric):
    rng = np.random.default_rng(0)
    cases = Counter()
    for _ in range(100):
        *problem, settings = draw(rng, metric)
        answer = constrained_step(*problem, **settings)
        # Contradicting constraints have no derivative.
        if answer.multiplier_kl == 0.0:
            continue
        cases[answer.case, min(len(problem[2]), 2)] += 1
        check(problem, settings)
    assert min(cases[c, m] for c in ("active", "inactive", "recovery") for m in (1, 2)) >= 3


@pytest.mark.parametrize("metric", ["dense", "euclidean"])
def test_without_an_objective_or_with_a_blocked_constraint(metric):
    rng = np.random.default_rng(1)
    moved = 0
    for _ in range(20):
        g, a, b, settings = draw(rng, metric)
        none = torch.zeros_like(g)
        moved += bool(constrained_step(none, a, b, **settings).step.any())
        check([none, a, b], settings, varied=(1, 2))
        blocked = [g, torch.cat([a, none[None]]), torch.cat([b, b.new_ones(1)])]
        answer = constrained_step(*blocked, **settings)
        assert answer.case == "degenerate"
        assert answer.corner in (None, "contradiction")
        check(blocked, settings, varied=(0, 2))
    assert moved > 5


def test_what_the_metric_does_against_finite_differences():
    """The pairs agree with central differences along symmetric changes of H, in every case."""
    rng = np.random.default_rng(2)
    cases = Counter()
    for _ in range(150):
        g, a, b, settings = draw(rng)
        answer = constrained_step(g, a, b, **settings)
        if answer.corner is not None:
            continue
        cases[answer.case, min(len(b), 2)] += 1
        size = len(g)
        metric = torch.linalg.inv(
            torch.stack([settings["inverse_metric"](e) for e in torch.eye(size).double()])
        )
        y, change = torch.tensor(rng.standard_normal(size)), torch.tensor(rng.standard_normal((size, size)))
        change = (change + change.T) * metric.diagonal().min()

        def moved(h, metric=metric, change=change, problem=(g, a, b), kl_bound=settings["kl_bound"]):
            inverse = torch.linalg.inv(metric + h * change)
            return constrained_step(*problem, kl_bound=kl_bound, inverse_metric=inverse.mv).step

        expected = y @ (moved(1e-6) - moved(-1e-6)) / 2e-6
        bars, pairs = answer.vjp.with_metric(y)
        moves = sum(u @ change @ w for u, w in pairs)
        assert float(moves) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
        assert all(torch.equal(x, z) for x, z in zip(bars, answer.vjp(y), strict=True))
    assert min(cases[c, m] for c in ("active", "inactive", "recovery") for m in (1, 2)) >= 3


def test_the_formula_for_one_active_constraint():
    """The product is that of the step's closed form, differentiated by hand."""
    rng = np.random.default_rng(2)
    count = 0
    for _ in range(60):
        g, a, b, settings = draw(rng)
        leaves = [x.clone().requires_grad_() for x in (g, a[:1], b[:1])]
        answer = constrained_step(*leaves, **settings)
        if answer.case != "active":
            continue
        count += 1
        y = torch.tensor(rng.standard_normal(len(g)))
        apply, a, b = settings["inverse_metric"], a[0], float(b[0])
        u, v, yt = apply(g), apply(a), apply(y)
        q, r, s = float(g @ u), float(g @ v), float(a @ v)
        w, big_a, big_b = u - r / s * v, q - r * r / s, 2 * settings["kl_bound"] - b * b / s
        c, al, om = math.sqrt(big_b / big_a), float(v @ y), float(w @ y)
        g_bar = -c * (yt - al / s * v - om / big_a * w)
        b_bar = -(al - b * om / (c * big_a)) / s
        a_bar = float(answer.multipliers) * g_bar + b_bar * answer.step.detach()
        answer.step.backward(y)
        for leaf, expected in zip(leaves, (g_bar, a_bar, g.new_tensor(b_bar)), strict=True):
            torch.testing.assert_close(leaf.grad.squeeze(), expected, rtol=1e-8, atol=1e-8)
    assert count > 10


def gradients(g, a, b, **settings):
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (g, a, b)]
    answer = constrained_step(*leaves, kl_bound=0.5, **settings)
    answer.step.backward(torch.tensor([1.0, 2.0], dtype=torch.float64))
    return answer, [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("b", [math.nextafter(1.0, 0.0), 1.0, math.nextafter(1.0, 2.0), 1 - 1e-9])
def test_finite_on_the_edge_of_infeasible(b):
    _, grads = gradients([-3.0, 4.0], [[1.0, 0.0]], [b])
    assert all(torch.isfinite(x).all() for x in grads)


def test_the_singular_part_is_left_out():
    answer, grads = gradients([-2.0, 0.0], [[1.0, 0.0]], [0.25])
    assert answer.case == "degenerate"
    # x = -(b/s) a with s = |a|^2: only b and a move it.
    assert grads[0].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(grads[1], [[0.25, -0.5]], atol=1e-12)
    np.testing.assert_allclose(grads[2], [-1.0], atol=1e-12)
    answer, grads = gradients([0.0, 1.0], [[1.0, 0.0], [-1.0, 0.0]], [0.5, 0.25])
    assert answer.case == "recovery"
    assert not any(x.any() for x in grads)


def near(sine, kind):
    """Return a problem of one constraint at this distance from an edge or from a flat objective."""
    if kind == "flat":
        return [-math.sqrt(1 - sine**2), sine], [[1.0, 0.0]], [0.5]
    return [-3.0, 4.0], [[1.0, 0.0]], [math.sqrt(1 - sine**2)]


@pytest.mark.parametrize(("kind", "grown"), [("edge", 2), ("flat", 0)])
def test_near_a_corner_only_the_singular_part_is_left_out(kind, grown):
    """Near a corner one derivative grows like the inverse distance, until the tolerance stops it."""
    sizes = []
    for sine in (1e-2, 1e-3, 1e-5, 1e-7):
        answer, grads = gradients(*near(sine, kind))
        assert answer.case == "active"
        assert answer.corner == (kind if sine < 1e-4 else None)
        sizes.append(float(grads[grown].abs().max()))
        assert all(x.abs().max() < 10.0 for k, x in enumerate(grads) if k not in (1, grown))
    assert sizes[1] == pytest.approx(10 * sizes[0], rel=0.05)
    assert sizes[2:] == pytest.approx([1.0, 1.0] if kind == "edge" else [0.0, 0.0], abs=1e-3)
    off, unguarded = gradients(*near(1e-5, kind), corner_tolerance=0.0)
    assert off.corner is None
    assert float(unguarded[grown].abs().max()) == pytest.approx(1e3 * sizes[0], rel=0.05)
    # The step itself does not depend on the tolerance.
    assert off.step.tolist() == gradients(*near(1e-5, kind))[0].step.tolist()


def test_near_a_flat_objective_the_limit_still_moves_the_step():
    """The derivative in b of x = (-b, -sqrt(2 delta - b^2)) is the same at any angle between g and a."""
    for sine in (1e-2, 1e-6):
        _, grads = gradients(*near(sine, "flat"))
        assert float(grads[2]) == pytest.approx(-1.0 + 2.0 * 0.5 / math.sqrt(0.75), abs=1e-9)


def test_near_a_contradiction_there_is_no_derivative():
    for sine, corner in ((1e-2, None), (1e-6, "contradiction")):
        answer, grads = gradients([0.0, 1.0], [[1.0, sine], [-1.0, sine]], [0.5, 0.5])
        assert (answer.case, answer.corner) == ("recovery", corner)
        assert bool(grads[1].any()) == (corner is None)


def test_corners_of_the_plain_cases():
    assert gradients([-2.0, 0.0], [[1.0, 0.0]], [0.25])[0].corner == "flat"
    assert gradients([0.0, 0.0], [[1.0, 0.0]], [-0.25])[0].corner == "flat"
    assert gradients([1.0, 1.0], [[1.0, 0.0]], [2.0])[0].corner is None
    assert gradients([1.0, 1.0], [[0.0, 0.0]], [2.0])[0].corner is None
    with pytest.raises(ValueError, match="corner_tolerance must be in"):
        gradients([1.0, 1.0], [[1.0, 0.0]], [0.0], corner_tolerance=1.0)


def test_the_product_needs_no_graph_and_can_be_repeated():
    rng = np.random.default_rng(3)
    g, a, b, settings = draw(rng)
    answer = constrained_step(g, a, b, **settings)
    assert not answer.step.requires_grad
    leaves = [x.clone().requires_grad_() for x in (g, a, b)]
    graph = constrained_step(*leaves, **settings).step
    for _ in range(2):
        y = torch.tensor(rng.standard_normal(len(g)))
        expected = torch.autograd.grad(graph, leaves, y, retain_graph=True)
        assert all(torch.equal(x, z) for x, z in zip(answer.vjp(y), expected, strict=True))


@pytest.mark.parametrize("k", [1e-3, 7.0, 1e4])
def test_scale_of_the_gradients(k):
    """x(k g, a, b) = x(g, k a, k b) = x(g, a, b), but normalising a without b changes the step."""
    rng = np.random.default_rng(4)
    changed = 0
    for _ in range(30):
        g, a, b, settings = draw(rng)
        x = constrained_step(g, a, b, **settings).step
        scale = {"rtol": 1e-9, "atol": 1e-9 * float(x.norm())}
        torch.testing.assert_close(constrained_step(k * g, a, b, **settings).step, x, **scale)
        torch.testing.assert_close(constrained_step(g, k * a, k * b, **settings).step, x, **scale)
        changed += not torch.allclose(constrained_step(g, k * a, b, **settings).step, x, **scale)
    assert changed > 10


def test_one_product_per_cotangent_and_none_without_gradient():
    calls = []

    def inverse(z):
        calls.append(z.dtype)
        return 0.5 * z

    g, a, b = torch.randn(4, requires_grad=True), torch.randn(1, 4), torch.zeros(1)
    step = constrained_step(g, a, b, kl_bound=0.1, inverse_metric=inverse).step
    assert len(calls) == 2
    step.sum().backward()
    assert calls == [torch.float32] * 3
    assert g.grad.dtype == torch.float32
    with torch.no_grad():
        assert not constrained_step(g, a, b, kl_bound=0.1).step.requires_grad
