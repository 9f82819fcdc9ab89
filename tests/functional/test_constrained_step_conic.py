"""The constrained step through cvxpylayers agrees with the closed form and with cvxpy in all parameters."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from toys.convex_reference import full_step

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.constrained_step.conic import program as programs

ROOT = Path(__file__).parents[2]
conic_step = functools.partial(constrained_step, backend="cvxpylayers")


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def draw(rng, m=None):
    """Draw a problem with a dense metric: ``H^-1`` for the step, and R with ``H = R R^T``."""
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


def error_of_multipliers(step, expected):
    scale = 1.0 + float(expected.multipliers.norm()) + expected.multiplier_kl
    error = float((step.multipliers - expected.multipliers).norm())
    return max(error, abs(step.multiplier_kl - expected.multiplier_kl)) / scale


def error_of_cotangents(value, expected, y):
    sizes = [(want.norm() + 1e-3 * y.norm()) for want in expected]
    return max(float((x - z).norm() / s) for x, z, s in zip(value, expected, sizes, strict=True))


def relative(value, expected):
    return float((value - expected).detach().norm() / expected.detach().norm())


def test_both_backends_agree_in_every_case():
    """Case, step, multipliers, predictions, inner products and derivatives (in H too) are the same."""
    rng = np.random.default_rng(0)
    cases = Counter()
    for _ in range(40):
        problem, kl_bound, inverse, _ = draw(rng)
        settings = {"kl_bound": kl_bound, "inverse_metric": inverse.mv}
        exact, conic = constrained_step(*problem, **settings), conic_step(*problem, **settings)
        assert (conic.case, conic.corner) == (exact.case, None)
        assert relative(conic.step, exact.step) < 1e-6
        assert error_of_multipliers(conic, exact) < 1e-6
        assert conic.predicted_objective == pytest.approx(exact.predicted_objective, rel=1e-6)
        assert conic.predicted_kl == pytest.approx(kl_bound, rel=1e-6)
        torch.testing.assert_close(
            conic.predicted_constraint, exact.predicted_constraint, rtol=1e-6, atol=1e-9
        )
        torch.testing.assert_close(conic.gram, exact.gram, rtol=1e-9, atol=1e-12)
        y = torch.tensor(rng.standard_normal(len(problem[0])))
        bars, pairs = conic.vjp.with_metric(y)
        expected, expected_pairs = exact.vjp.with_metric(y)
        assert error_of_cotangents(bars, expected, y) < 1e-6
        assert all(torch.equal(x, z) for x, z in zip(bars, conic.vjp(y), strict=True))
        change = torch.tensor(rng.standard_normal((len(y), len(y))))
        change = (change + change.T) * float(inverse.diagonal().mean()) ** -1
        moved, expected_move = (sum(u @ change @ w for u, w in x) for x in (pairs, expected_pairs))
        assert float(moved) == pytest.approx(float(expected_move), rel=1e-6, abs=1e-6 * float(y.norm()))
        cases[exact.case, min(len(problem[2]), 2)] += 1
    wanted = [(case, m) for case in ("inactive", "active", "recovery") for m in (1, 2)]
    assert min(cases[key] for key in wanted) >= 2


@pytest.mark.filterwarnings(
    "ignore:Sparse invariant checks", "ignore:Sol.* inaccurate", "ignore:Solved/Inacc"
)
def test_both_backends_agree_with_the_programs_in_all_parameters():
    rng = np.random.default_rng(7)
    cases = Counter()
    for _ in range(10):
        problem, kl_bound, inverse, root = draw(rng)
        leaves = [x.clone().requires_grad_() for x in problem]
        full = full_step(*leaves, kl_bound=kl_bound, metric_root=root)
        y = torch.tensor(rng.standard_normal(len(problem[0])))
        expected = torch.autograd.grad(full.step, leaves, y)
        for backend in ("exact", "cvxpylayers"):
            settings = {"kl_bound": kl_bound, "inverse_metric": inverse.mv, "backend": backend}
            step = constrained_step(*problem, **settings)
            assert step.case == full.case
            assert relative(step.step, full.step) < 1e-6
            assert error_of_multipliers(step, full) < 1e-5
            assert error_of_cotangents(step.vjp(y), expected, y) < 1e-5
        cases[full.case] += 1
    assert min(cases[x] for x in ("inactive", "active", "recovery")) >= 3


def test_many_parameters_in_float32():
    """Both backends agree at P = 300 with zeros in the gradients and a metric that takes float32 alone."""
    rng = torch.Generator().manual_seed(0)
    g, a = torch.randn(300, generator=rng), torch.randn(1, 300, generator=rng)
    g[:50], a[:, 30:80] = 0.0, 0.0
    y, scale = torch.randn(300, generator=rng), torch.rand(300, generator=rng) + 0.5
    for b, case in ((0.5, "active"), (-9.0, "inactive"), (9.0, "recovery")):
        for metric in (None, torch.diag(scale).mv):
            settings = {"kl_bound": 0.1, "inverse_metric": metric}
            exact = constrained_step(g, a, torch.tensor([b]), **settings)
            conic = conic_step(g, a, torch.tensor([b]), **settings)
            assert conic.step.dtype == torch.float32
            assert conic.case == exact.case == case
            assert relative(conic.step, exact.step) < 1e-5
            assert error_of_cotangents(conic.vjp(y), exact.vjp(y), y) < 1e-5


def test_gradients_reach_the_tensors_of_the_caller():
    rng = np.random.default_rng(1)
    problem, kl_bound, inverse, _ = draw(rng, m=2)
    problem = (-problem[1].sum(dim=0) + 0.3 * problem[0], problem[1], torch.zeros_like(problem[2]))

    def step(*values):
        return conic_step(*values, kl_bound=kl_bound, inverse_metric=inverse.mv).step

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
        (tensor([0.0, 0.0]), none, tensor([-0.25])),
        (tensor([1.0, 1.0]), none, tensor([0.5])),
        (tensor([1.0, 1.0]), torch.cat([none, one]), tensor([0.5, 0.25])),
        (tensor([1.0, 1.0]), torch.cat([none, one]), tensor([0.5, 2.0])),
        (tensor([1.0, 1.0]), torch.cat([none, one]), tensor([-0.5, 0.25])),
        (tensor([0.0, 1.0]), torch.cat([one, -one]), tensor([0.5, 0.25])),
        (tensor([1.0, 1.0]), one[:0], tensor([])),
        (tensor([1.0, 1.0]), one, tensor([-math.inf])),
    ):
        expected = constrained_step(*problem, kl_bound=0.5)
        step = conic_step(*problem, kl_bound=0.5)
        assert (step.case, step.corner) == (expected.case, expected.corner)
        torch.testing.assert_close(step.step, expected.step, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(step.multipliers, expected.multipliers, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(step.gram, expected.gram)
        for got, want in zip(step.vjp(y), expected.vjp(y), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_flat_objective_between_several_constraints():
    """The objective falls along one constraint's gradient; the others limit the shortest best step."""
    rng = np.random.default_rng(3)
    corners, held = Counter(), Counter()
    for _ in range(40):
        (_, a, b), kl_bound, inverse, _ = draw(rng, m=3)
        y = torch.tensor(rng.standard_normal(a.shape[1]))
        settings = {"kl_bound": kl_bound, "inverse_metric": inverse.mv}
        exact, conic = (solve(-0.5 * a[0], a, b, **settings) for solve in (constrained_step, conic_step))
        assert conic.case == exact.case
        torch.testing.assert_close(conic.step, exact.step, rtol=1e-6, atol=1e-7)
        corners[conic.corner] += 1
        if conic.corner == "parallel":
            # Where g does not drop out, its derivative is not known, and the corner says so.
            assert exact.case in ("active", "inactive")
            assert exact.corner is None
            assert not any(x.any() for x in conic.vjp(y))
            continue
        assert conic.corner == exact.corner
        assert error_of_cotangents(conic.vjp(y), exact.vjp(y), y) < 1e-5
        held[exact.case, int((exact.predicted_constraint.abs() < 1e-9).sum())] += 1
    assert corners["parallel"] >= 3
    assert min(held["degenerate", 1], held["degenerate", 2]) >= 3


def test_two_constraints_that_are_one():
    """Which of them holds the step, and so the derivative, is an arbitrary choice."""
    problem = tensor([-2.0, 1.0]), tensor([[1.0, 0.0], [2.0, 0.0]]), tensor([0.25, 0.5])
    expected = constrained_step(*problem, kl_bound=0.5)
    step = conic_step(*problem, kl_bound=0.5)
    torch.testing.assert_close(step.step, expected.step, rtol=1e-8, atol=1e-8)
    pull = float(problem[1][:, 0] @ step.multipliers)
    assert pull == pytest.approx(float(problem[1][:, 0] @ expected.multipliers), rel=1e-6)
    assert all(torch.isfinite(bar).all() for bar in step.vjp(tensor([1.0, 2.0])))
    third = [torch.cat([x, torch.zeros_like(x[..., :1])], dim=-1) for x in problem[:2]]
    assert conic_step(*third, problem[2], kl_bound=0.5).corner == "parallel"


@pytest.mark.parametrize("kind", ["edge", "flat"])
def test_near_a_corner_the_derivative_is_zero(kind):
    sine = 1e-5
    problem = (
        (tensor([-math.sqrt(1 - sine**2), sine]), tensor([[1.0, 0.0]]), tensor([0.5]))
        if kind == "flat"
        else (tensor([-3.0, 4.0]), tensor([[1.0, 0.0]]), tensor([math.sqrt(1 - sine**2)]))
    )
    step = conic_step(*problem, kl_bound=0.5)
    assert (step.case, step.corner) == ("active", kind)
    assert not any(x.any() for x in step.vjp(tensor([1.0, 2.0])))
    exact = constrained_step(*problem, kl_bound=0.5)
    torch.testing.assert_close(step.step, exact.step, rtol=1e-6, atol=1e-6)
    multipliers = [step.multiplier_kl, float(step.multipliers)]
    assert multipliers == pytest.approx([exact.multiplier_kl, float(exact.multipliers)], rel=1e-2)


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
def test_extra_sets_against_a_solution_in_all_parameters(sets):
    """The reduced optimum is that over all of R^P, with the same set written by hand on x."""
    rng = np.random.default_rng(3)
    cases = Counter()
    for _ in range(12):
        (g, a, b), kl_bound, inverse, root = draw(rng, m=2)
        step = conic_step(g, a, b, kl_bound=kl_bound, inverse_metric=inverse.mv, extra_constraints=sets)
        cases[step.case] += 1
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
        if step.case == "recovery":
            assert least > -1e-7
            got = a @ step.step / size[:2] + b / size[:2]
            assert float(got.max()) == pytest.approx(least, abs=1e-6)
            continue
        assert least < 1e-7
        best = cp.Problem(cp.Minimize(changes[2]), [*limits, excess <= 0]).solve(solver=cp.CLARABEL)
        assert float(g @ step.step / size[2]) == pytest.approx(best, abs=1e-6)
        if sets is not half_of_the_gain:  # many steps have half of the gain
            np.testing.assert_allclose(step.step, x.value, rtol=0, atol=1e-4 * radius)
        assert (step.predicted_constraint <= 1e-6 * size[:2]).all()
    assert cases["active"] >= 3


@pytest.mark.parametrize("sets", [slow_cost, box])
def test_derivative_in_extra_sets(sets):
    rng = np.random.default_rng(4)
    checked = 0
    for _ in range(8):
        problem, kl_bound, inverse, _ = draw(rng, m=1)
        settings = {"kl_bound": kl_bound, "inverse_metric": inverse.mv, "extra_constraints": sets}
        if conic_step(*problem, **settings).case != "active":
            continue
        checked += 1

        def step(*values, settings=settings):
            return conic_step(*values, **settings).step

        leaves = [x.clone().requires_grad_() for x in problem]
        assert torch.autograd.gradcheck(step, leaves, eps=1e-5, atol=1e-3, rtol=1e-3)
    assert checked >= 2


def test_sets_that_exclude_everything():
    problem = tensor([1.0, 1.0]), tensor([[1.0, 0.0]]), tensor([0.0])
    step = conic_step(*problem, kl_bound=0.5, extra_constraints=impossible)
    assert (step.case, step.step.tolist()) == ("degenerate", [0.0, 0.0])
    assert not any(x.any() for x in step.vjp(tensor([1.0, 2.0])))


def test_scale_of_the_gradients():
    problem, kl_bound, inverse, _ = draw(np.random.default_rng(5), m=1)
    a = problem[1]
    g = 0.5 * problem[0] - a[0]
    b = 0.5 * (2 * kl_bound * (a[0] @ inverse @ a[0])).sqrt()[None]
    settings = {"kl_bound": kl_bound, "inverse_metric": inverse.mv}
    x = conic_step(g, a, b, **settings).step
    for k in (1e-6, 1e5):
        torch.testing.assert_close(conic_step(k * g, a, b, **settings).step, x, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(conic_step(g, k * a, k * b, **settings).step, x, rtol=1e-8, atol=1e-10)
        assert not torch.allclose(conic_step(g, k * a, b, **settings).step, x, rtol=1e-3)


def test_without_constraints():
    """The step of TRPO has one direction; sets can still shorten it."""
    g, a, b = tensor([3.0, 4.0]), torch.zeros(0, 2, dtype=torch.float64), tensor([])

    def half(step):
        assert step.cost_changes.shape == (0,)
        return [cp.norm(step.coordinates) <= 0.5, step.objective_change >= -0.7]

    free, held = conic_step(g, a, b, kl_bound=0.5), conic_step(g, a, b, kl_bound=0.5, extra_constraints=half)
    assert (free.case, held.case) == ("inactive", "active")
    torch.testing.assert_close(free.step, tensor([-0.6, -0.8]), rtol=0, atol=1e-8)
    torch.testing.assert_close(held.step, tensor([-0.3, -0.4]), rtol=0, atol=1e-8)
    assert held.multipliers.shape == (0,)


def test_refusals(monkeypatch):
    g, a, b = tensor([1.0, 1.0]), tensor([[1.0, 0.0]]), tensor([0.0])
    with pytest.raises(ValueError, match="extra_constraints must be None with backend='exact'"):
        constrained_step(g, a, b, kl_bound=0.5, extra_constraints=box)
    with pytest.raises(ValueError, match=r"backend must be one of \('exact', 'cvxpylayers'\), got 'ecos'"):
        constrained_step(g, a, b, kl_bound=0.5, backend="ecos")
    with pytest.raises(ValueError, match=r"extra_constraints must be convex .* \(DPP\), got \['0.5 <= "):
        conic_step(g, a, b, kl_bound=0.5, extra_constraints=lambda step: [cp.norm(step.coordinates) >= 0.5])
    with pytest.raises(TypeError, match="must return a list of cvxpy constraints, got True"):
        conic_step(g, a, b, kl_bound=0.5, extra_constraints=lambda step: True)
    with pytest.raises(ValueError, match="kl_bound must be > 0"):
        conic_step(g, a, b, kl_bound=-1.0)
    with pytest.raises(ValueError, match="corner_tolerance must be in"):
        conic_step(g, a, b, kl_bound=0.5, corner_tolerance=1.0)
    with pytest.raises(ValueError, match="positive definite"):
        conic_step(g, a, b, kl_bound=0.5, inverse_metric=torch.neg)
    with pytest.raises(NonFiniteError, match="inverse_metric"):
        conic_step(g, a, b, kl_bound=0.5, inverse_metric=lambda z: z / 0.0)
    with pytest.raises(NonFiniteError, match="must be finite"):
        conic_step(g * math.nan, a, b, kl_bound=0.5)
    # An inaccurate answer of the solver is refused.
    problem, kl_bound, inverse, _ = draw(np.random.default_rng(7), m=3)
    monkeypatch.setattr(programs, "SCS_TOLERANCE", 9e-4)
    with pytest.raises(ArithmeticError, match="misses optimality"):
        conic_step(*problem, kl_bound=kl_bound, inverse_metric=inverse.mv)

    def failing(*arguments, **settings):
        raise cp.SolverError("no answer")

    monkeypatch.setattr(cp.Problem, "solve", failing)
    with pytest.raises(ArithmeticError, match="the conic solver failed: no answer"):
        conic_step(g, a, b, kl_bound=0.5, extra_constraints=box)


def test_the_snippet_of_the_docs_page_runs(capsys):
    snippet = (ROOT / "docs" / "convex_sets.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(snippet, names)
    a, answer = names["a"], names["answer"]
    largest = (0.02 * answer.gram.diagonal()).sqrt()
    assert float(a[1] @ answer.step) == pytest.approx(0.1 * float(largest[1]), rel=1e-4)
    assert capsys.readouterr().out.startswith("active")


def test_the_solver_is_loaded_when_it_is_needed():
    code = "import sys, fsrl_ext.functional.constrained_step as x; print('cvxpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
