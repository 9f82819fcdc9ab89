"""The constrained step through cvxpylayers: against the closed form, in further sets, batches and corners."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import cvxpy as cp
import numpy as np
import pytest
import torch

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.constrained_step.conic import convex_step, convex_steps, full_convex_step


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def draw(rng, m=None):
    """A problem with a dense metric, as settings of the reduced and of the full solution."""
    size, m = int(rng.integers(3, 7)), m or int(rng.integers(1, 4))
    root = torch.tensor(rng.standard_normal((size, size)))
    inverse = root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)
    inverse = 0.5 * (inverse + inverse.T)
    kl_bound = 10.0 ** rng.uniform(-3, 0)
    g, a = torch.tensor(rng.standard_normal(size)), torch.tensor(rng.standard_normal((m, size)))
    reach = (2 * kl_bound * torch.einsum("ip,pq,iq->i", a, inverse, a)).sqrt()
    b = torch.tensor(rng.uniform(-1.2, 1.2, m)) * reach
    metric_root = torch.linalg.cholesky(torch.linalg.inv(inverse))
    return (g, a, b), kl_bound, inverse, metric_root


def difference(found, expected, y):
    """Largest relative error of the step, its product with y, and the multipliers."""
    errors = [float((found.step - expected.step).norm() / expected.step.norm())]
    for got, want in zip(found.vjp(y), expected.vjp(y), strict=True):
        errors.append(float((got - want).norm() / (want.norm() + 1e-3 * y.norm())))
    scale = 1.0 + float(expected.multipliers.norm()) + expected.multiplier_kl
    errors.append(float((found.multipliers - expected.multipliers).norm()) / scale)
    errors.append(abs(found.multiplier_kl - expected.multiplier_kl) / scale)
    return max(errors)


def test_agrees_with_the_closed_form_in_every_case():
    rng = np.random.default_rng(0)
    cases = Counter()
    for _ in range(50):
        problem, kl_bound, inverse, root = draw(rng)
        expected = constrained_step(*problem, kl_bound=kl_bound, inverse_metric=inverse.mv)
        y = torch.tensor(rng.standard_normal(len(problem[0])))
        reduced = convex_step(*problem, kl_bound=kl_bound, inverse_metric=inverse.mv)
        full = full_convex_step(*problem, kl_bound=kl_bound, metric_root=root)
        for found in (reduced, full):
            assert (found.case, found.corner) == (expected.case, None)
            assert difference(found, expected, y) < 1e-6
            assert found.predicted_objective == pytest.approx(expected.predicted_objective, rel=1e-6)
            torch.testing.assert_close(
                found.predicted_constraint, expected.predicted_constraint, rtol=1e-6, atol=1e-9
            )
            assert found.predicted_kl == pytest.approx(kl_bound, rel=1e-6)
        cases[expected.case, min(len(problem[2]), 2)] += 1
    wanted = [(case, m) for case in ("inactive", "active", "recovery") for m in (1, 2)]
    assert min(cases[key] for key in wanted) >= 2


def test_agrees_without_a_metric_and_with_many_parameters():
    """P = 300 in float32, gradients with zeros, and none of the programs has P x P entries."""
    rng = torch.Generator().manual_seed(0)
    g, a = torch.randn(300, generator=rng), torch.randn(1, 300, generator=rng)
    g[:50], a[:, 30:80] = 0.0, 0.0
    y = torch.randn(300, generator=rng)
    for b, case in ((0.5, "active"), (-9.0, "inactive"), (9.0, "recovery")):
        problem = (g, a, torch.tensor([b]))
        expected = constrained_step(*problem, kl_bound=0.1)
        assert expected.case == case
        for solve in (convex_step, full_convex_step):
            found = solve(*problem, kl_bound=0.1)
            assert found.step.dtype == torch.float32
            assert found.case == case
            assert difference(found, expected, y) < 1e-5


def test_gradients_reach_the_tensors_of_the_caller():
    rng = np.random.default_rng(1)
    problem, kl_bound, inverse, _ = draw(rng, m=2)
    problem = (-problem[1].sum(dim=0) + 0.3 * problem[0], problem[1], torch.zeros_like(problem[2]))

    def step(*values):
        return convex_step(*values, kl_bound=kl_bound, inverse_metric=inverse.mv).step

    leaves = [x.clone().requires_grad_() for x in problem]
    assert torch.autograd.gradcheck(step, leaves, eps=1e-6, atol=1e-4, rtol=1e-3)
    assert not step(*problem).requires_grad
    # diffcp takes cotangents below 1e-8 for zero; the direction must survive any scale.
    x = step(*leaves)
    large = torch.autograd.grad(x.sum(), leaves, retain_graph=True)
    small = torch.autograd.grad(1e-14 * x.sum(), leaves)
    for p, q in zip(large, small, strict=True):
        torch.testing.assert_close(1e14 * q, p, rtol=1e-9, atol=1e-12)
        assert p.any()


def test_degenerate_problems():
    one, none, y = tensor([[1.0, 0.0]]), tensor([[0.0, 0.0]]), tensor([1.0, 2.0])
    for problem in (
        (tensor([-2.0, 0.0]), one, tensor([0.25])),
        (tensor([0.0, 0.0]), one, tensor([0.25])),
        (tensor([0.0, 0.0]), one, tensor([-0.25])),
        (tensor([1.0, 1.0]), none, tensor([0.5])),
        (tensor([1.0, 1.0]), torch.cat([none, one]), tensor([0.5, 0.25])),
        (tensor([1.0, 1.0]), torch.cat([none, one]), tensor([0.5, 2.0])),
        (tensor([0.0, 1.0]), torch.cat([one, -one]), tensor([0.5, 0.25])),
        (tensor([1.0, 1.0]), one[:0], tensor([])),
        (tensor([1.0, 1.0]), one, tensor([-math.inf])),
    ):
        expected = constrained_step(*problem, kl_bound=0.5)
        for solve in (convex_step, full_convex_step):
            found = solve(*problem, kl_bound=0.5)
            assert (found.case, found.corner) == (expected.case, expected.corner)
            torch.testing.assert_close(found.step, expected.step, rtol=1e-6, atol=1e-6)
            for got, want in zip(found.vjp(y), expected.vjp(y), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_two_constraints_that_are_one():
    """Which of them holds the step, and so the derivative, is anybody's choice."""
    problem = tensor([-2.0, 1.0]), tensor([[1.0, 0.0], [2.0, 0.0]]), tensor([0.25, 0.5])
    expected = constrained_step(*problem, kl_bound=0.5)
    for solve in (convex_step, full_convex_step):
        found = solve(*problem, kl_bound=0.5)
        torch.testing.assert_close(found.step, expected.step, rtol=1e-8, atol=1e-8)
        pull = float(problem[1][:, 0] @ found.multipliers)
        assert pull == pytest.approx(float(problem[1][:, 0] @ expected.multipliers), rel=1e-6)
        assert all(torch.isfinite(bar).all() for bar in found.vjp(tensor([1.0, 2.0])))


@pytest.mark.parametrize("kind", ["edge", "flat"])
def test_near_a_corner_the_derivative_is_zero(kind):
    sine = 1e-5
    problem = (
        (tensor([-math.sqrt(1 - sine**2), sine]), tensor([[1.0, 0.0]]), tensor([0.5]))
        if kind == "flat"
        else (tensor([-3.0, 4.0]), tensor([[1.0, 0.0]]), tensor([math.sqrt(1 - sine**2)]))
    )
    found = full_convex_step(*problem, kl_bound=0.5)
    assert (found.case, found.corner) == ("active", kind)
    assert not any(x.any() for x in found.vjp(tensor([1.0, 2.0])))
    closed = constrained_step(*problem, kl_bound=0.5)
    torch.testing.assert_close(found.step, closed.step, rtol=1e-6, atol=1e-6)
    multipliers = [found.multiplier_kl, float(found.multipliers)]
    assert multipliers == pytest.approx([closed.multiplier_kl, float(closed.multipliers)], rel=1e-2)


def test_one_infeasible_item_does_not_fail_the_others():
    rng = np.random.default_rng(2)
    size = 5
    g, a = torch.tensor(rng.standard_normal((4, size))), torch.tensor(rng.standard_normal((4, 2, size)))
    g[1] = 0.3 * g[1] - a[1].sum(dim=0)
    b = torch.tensor([[-9.0, -9.0], [0.0, 0.0], [9.0, 3.0], [0.1, -0.1]], dtype=torch.float64)
    a[3, 0] = 0.0
    inverse = torch.diag(torch.arange(1.0, 6.0, dtype=torch.float64))
    metrics = [None, inverse.mv, None, inverse.mv]
    a.requires_grad_()
    found = convex_steps(g, a, b, kl_bound=0.1, inverse_metrics=metrics)
    assert [x.case for x in found] == ["inactive", "active", "recovery", "degenerate"]
    for k, (item, metric) in enumerate(zip(found, metrics, strict=True)):
        alone = constrained_step(g[k], a[k].detach(), b[k], kl_bound=0.1, inverse_metric=metric)
        torch.testing.assert_close(item.step, alone.step, rtol=1e-6, atol=1e-9)
    # The gradient of one item stays in its rows.
    found[1].step.sum().backward()
    assert [bool(x.any()) for x in a.grad] == [False, True, False, False]


def slow_cost(step):
    return [cp.abs(step.cost_changes) <= 0.3]


def box(step):
    return [cp.norm_inf(step.coordinates) <= 0.5]


def half_of_the_gain(step):
    return [step.objective_change >= -0.5]


def impossible(step):
    return [step.cost_changes[0] <= -2.0]


def apart(step):
    return [step.cost_changes[0] <= -0.6]


@pytest.mark.parametrize("sets", [slow_cost, box, half_of_the_gain, apart])
def test_further_sets_against_a_solution_in_all_parameters(sets):
    """The same set, written by hand on x: the reduced optimum is that over all of R^P."""
    rng = np.random.default_rng(3)
    cases = Counter()
    for _ in range(12):
        (g, a, b), kl_bound, inverse, root = draw(rng, m=2)
        found = convex_step(g, a, b, kl_bound=kl_bound, inverse_metric=inverse.mv, sets=sets)
        cases[found.case] += 1
        radius = math.sqrt(2 * kl_bound)
        rows = torch.cat([a, g[None]])
        size = torch.einsum("ip,pq,iq->i", rows, inverse, rows).sqrt() * radius
        factor = torch.linalg.cholesky(rows @ inverse @ rows.T).numpy()
        x = cp.Variable(len(g))
        changes = cp.multiply(rows.numpy() @ x, 1.0 / size.numpy())
        limits = [cp.norm(root.T.numpy() @ x) <= radius]
        limits += {
            slow_cost: [cp.abs(changes[:2]) <= 0.3],
            box: [cp.norm_inf(np.linalg.inv(factor) @ rows.numpy() @ x) <= 0.5 * radius],
            half_of_the_gain: [changes[2] >= -0.5],
            apart: [changes[0] <= -0.6],
        }[sets]
        excess = changes[:2] + b.numpy() / size[:2].numpy()
        least = cp.Problem(cp.Minimize(cp.max(excess)), limits).solve(solver=cp.CLARABEL)
        if found.case == "recovery":
            assert least > -1e-7
            got = a @ found.step / size[:2] + b / size[:2]
            assert float(got.max()) == pytest.approx(least, abs=1e-6)
            continue
        assert least < 1e-7
        best = cp.Problem(cp.Minimize(changes[2]), [*limits, excess <= 0]).solve(solver=cp.CLARABEL)
        assert float(g @ found.step / size[2]) == pytest.approx(best, abs=1e-6)
        assert (found.predicted_constraint <= 1e-6 * size[:2]).all()
    assert cases["active"] >= 3


@pytest.mark.parametrize("sets", [slow_cost, box])
def test_derivative_in_further_sets(sets):
    rng = np.random.default_rng(4)
    checked = 0
    for _ in range(8):
        problem, kl_bound, inverse, _ = draw(rng, m=1)
        found = convex_step(*problem, kl_bound=kl_bound, inverse_metric=inverse.mv, sets=sets)
        if found.case != "active":
            continue
        checked += 1

        def step(*values, kl_bound=kl_bound, inverse=inverse):
            settings = {"kl_bound": kl_bound, "inverse_metric": inverse.mv, "sets": sets}
            return convex_step(*values, **settings).step

        leaves = [x.clone().requires_grad_() for x in problem]
        assert torch.autograd.gradcheck(step, leaves, eps=1e-5, atol=1e-3, rtol=1e-3)
    assert checked >= 2


def test_sets_that_exclude_everything():
    found = convex_step(
        tensor([1.0, 1.0]), tensor([[1.0, 0.0]]), tensor([0.0]), kl_bound=0.5, sets=impossible
    )
    assert (found.case, found.step.tolist()) == ("degenerate", [0.0, 0.0])
    assert not any(x.any() for x in found.vjp(tensor([1.0, 2.0])))


def test_scale_of_the_gradients():
    problem, kl_bound, inverse, _ = draw(np.random.default_rng(5), m=1)
    a = problem[1]
    g = 0.5 * problem[0] - a[0]
    b = 0.5 * (2 * kl_bound * (a[0] @ inverse @ a[0])).sqrt()[None]
    settings = {"kl_bound": kl_bound, "inverse_metric": inverse.mv}
    x = convex_step(g, a, b, **settings).step
    for k in (1e-6, 1e5):
        torch.testing.assert_close(convex_step(k * g, a, b, **settings).step, x, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(convex_step(g, k * a, k * b, **settings).step, x, rtol=1e-8, atol=1e-10)
        assert not torch.allclose(convex_step(g, k * a, b, **settings).step, x, rtol=1e-3)


def test_refusals():
    g, a, b = tensor([1.0, 1.0]), tensor([[1.0, 0.0]]), tensor([0.0])
    with pytest.raises(ValueError, match="kl_bound must be > 0"):
        convex_step(g, a, b, kl_bound=-1.0)
    with pytest.raises(ValueError, match="one entry per item"):
        convex_steps([g, g], [a], [b], kl_bound=0.5)
    with pytest.raises(ValueError, match="inverse_metrics must have 1 entries"):
        convex_steps([g], [a], [b], kl_bound=0.5, inverse_metrics=[None, None])
    with pytest.raises(ValueError, match="tolerance must be in"):
        convex_step(g, a, b, kl_bound=0.5, tolerance=0.0)
    with pytest.raises(ValueError, match="metric_root must be"):
        full_convex_step(g, a, b, kl_bound=0.5, metric_root=torch.eye(3))
    with pytest.raises(ValueError, match="positive definite"):
        convex_step(g, a, b, kl_bound=0.5, inverse_metric=torch.neg)
    with pytest.raises(NonFiniteError):
        convex_step(g, a, b, kl_bound=0.5, inverse_metric=lambda z: z / 0.0)
    with pytest.raises(NonFiniteError):
        convex_step(g * math.nan, a, b, kl_bound=0.5)
    # A solver that is told to stop early does not get away with it.
    problem, kl_bound, inverse, _ = draw(np.random.default_rng(7), m=3)
    with pytest.raises(ArithmeticError, match="misses optimality"):
        convex_step(*problem, kl_bound=kl_bound, inverse_metric=inverse.mv, tolerance=9e-4)


def test_the_solver_is_loaded_when_it_is_needed():
    code = "import sys, fsrl_ext.functional.constrained_step.conic; print('cvxpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
