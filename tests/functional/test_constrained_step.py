"""The exact constrained step against optimality certificates, a conic solver, and cases by hand.

``constrained_step`` gets products with ``H^-1``; the tests know ``H``.
"""

from __future__ import annotations

import math
from collections import Counter

import cvxpy as cp
import numpy as np
import pytest
import torch

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.constrained_step.coordinates import reduce


def solve(g, a, b, metric=None, kl_bound=0.5, dtype=torch.float64):
    inverse = None if metric is None else torch.tensor(np.linalg.inv(metric), dtype=dtype).mv
    g, a, b = (torch.tensor(np.asarray(x), dtype=dtype) for x in (g, a, b))
    return constrained_step(g, a, b, kl_bound=kl_bound, inverse_metric=inverse)


def draw(rng):
    """Draw a problem: 1 to 3 constraints, condition up to 1e4, angles down to 1e-9, zero gradients."""
    size, m = int(rng.integers(2, 9)), int(rng.integers(1, 4))
    rotation = np.linalg.qr(rng.standard_normal((size, size)))[0]
    metric = rotation * 10.0 ** rng.uniform(-2, 2, size) @ rotation.T
    metric = (metric + metric.T) / 2
    g = rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 3)
    a = rng.standard_normal((m, size)) * 10.0 ** rng.uniform(-3, 3, (m, 1))
    kind = rng.choice(["plain", "near", "parallel", "zero"], p=[0.5, 0.25, 0.15, 0.1])
    if kind in ("near", "parallel"):
        angle = 10.0 ** rng.uniform(-9, -1) if kind == "near" else 0.0
        turned = a[0] + angle * np.abs(a[0]).max() * rng.standard_normal(size)
        turned *= rng.choice([-1.0, 1.0]) * 2.0 ** rng.integers(-2, 3)
        if m > 1 and rng.random() < 0.5:
            a[1] = turned
        else:
            g = turned
    elif kind == "zero":
        if rng.random() < 0.5:
            g = np.zeros(size)
        else:
            a[rng.integers(m)] = 0.0
    kl_bound = 10.0 ** rng.uniform(-4, 0)
    reach = np.sqrt(2 * kl_bound * np.einsum("ip,pq,iq->i", a, np.linalg.inv(metric), a))
    b = rng.uniform(-1.3, 1.3, m) * np.where(reach > 0, reach, 1.0) * rng.choice([0.1, 1.0], m)
    return g, a, b, metric, kl_bound


class White:
    """A problem and its answer in ``y = L^T x / sqrt(2 delta)``, with unit ball, rows and objective."""

    def __init__(self, g, a, b, metric, kl_bound, answer):
        self.root, self.radius = np.linalg.cholesky(metric), math.sqrt(2 * kl_bound)
        white = np.linalg.solve(self.root, np.vstack([a, g]).T).T
        size = np.linalg.norm(white, axis=1)
        unit = white / np.where(size > 0, size, 1.0)[:, None]
        self.a, self.g, self.size, self.slope = unit[:-1], unit[-1], size[:-1], size[-1]
        self.moves = self.size > 0
        self.b = b / np.where(self.moves, self.size * self.radius, 1.0)
        self.blocked = bool((~self.moves & (b > 0)).any())
        self.x = self.root.T @ answer.step.numpy() / self.radius
        self.excess = (self.b + self.a @ self.x)[self.moves]

    def gap_of_best(self, answer):
        """Return primal minus dual value, ``g.y - (nu.b - |g + a^T nu|)``; zero proves both optimal."""
        nu = answer.multipliers.numpy() * self.size / self.slope
        return float(self.g @ self.x - (nu @ self.b - np.linalg.norm(self.g + nu @ self.a)))

    def gap_of_least_violation(self, answer):
        nu = answer.multipliers.numpy() * self.size
        nu /= nu.sum()
        return float(self.excess.max() - (nu @ self.b - np.linalg.norm(nu @ self.a)))


def test_certificates_on_a_thousand_problems():
    """A feasible step that attains the bound of its multipliers is optimal; that takes no solver."""
    rng = np.random.default_rng(0)
    cases = Counter()
    for _ in range(1000):
        problem = draw(rng)
        answer = solve(*problem[:4], kl_bound=problem[4])
        white = White(*problem, answer)
        cases[answer.case] += 1
        assert np.linalg.norm(white.x) <= 1 + 1e-9
        assert answer.predicted_kl == pytest.approx(problem[4] * float(white.x @ white.x), rel=1e-9)
        exact = problem[2] + problem[1] @ answer.step.numpy()
        scale = 1e-10 * (np.abs(exact) + white.size * white.radius)
        assert (np.abs(answer.predicted_constraint.numpy() - exact) <= scale).all()
        value = float(problem[0] @ answer.step.numpy())
        assert answer.predicted_objective == pytest.approx(value, abs=1e-10 * white.slope * white.radius)
        assert (answer.multipliers >= 0).all()
        if answer.case == "recovery":
            assert white.gap_of_least_violation(answer) < 1e-9
            assert white.excess.max() > -1e-12
            continue
        if white.blocked:
            assert answer.case == "degenerate"
            continue
        assert white.excess.max(initial=0.0) < 1e-9
        if white.slope > 0:
            gap = white.gap_of_best(answer)
            assert gap < 1e-9
            assert gap < 1e-6 * abs(float(white.g @ white.x)) + 1e-12
        tight = answer.multiplier_kl > 0
        assert tight == (answer.case in ("active", "inactive"))
        if tight:
            residual = white.g * white.slope + answer.multipliers.numpy() * white.size @ white.a
            residual += answer.multiplier_kl * white.radius * white.x
            scale = white.slope + float(answer.multipliers.numpy() @ white.size)
            assert np.linalg.norm(residual) < 1e-8 * scale
        if answer.case != "active":
            assert answer.case == "degenerate" or not answer.multipliers.any()
    assert min(cases[case] for case in ("inactive", "active", "recovery", "degenerate")) > 50


def minimise(objective, constraints):
    problem = cp.Problem(cp.Minimize(objective), constraints)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return float(problem.value)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_against_a_conic_solver():
    """Case and value are those of Clarabel; benchmarks/constrained_step.py compares more problems."""
    rng = np.random.default_rng(1)
    cases = Counter()
    for _ in range(100):
        problem = draw(rng)
        answer = solve(*problem[:4], kl_bound=problem[4])
        white = White(*problem, answer)
        if white.blocked or white.slope == 0 or not white.moves.any():
            continue
        y = cp.Variable(len(white.x))
        ball = cp.norm(y) <= 1
        level = white.b[white.moves] + white.a[white.moves] @ y
        least = minimise(cp.max(level), [ball])
        assert (answer.case == "recovery") == (least > 0)
        cases[answer.case] += 1
        if least > 0:
            assert white.excess.max() == pytest.approx(least, abs=1e-7)
        else:
            best = minimise(white.g @ y, [ball, level <= 0])
            assert float(white.g @ white.x) == pytest.approx(best, rel=1e-6, abs=1e-8)
    assert len(cases) == 4


# With H = I and delta = 1/2 the trust region is the unit disc; this is the one constraint.
A = [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("g", "b", "case", "step", "multiplier_kl", "multiplier"),
    [
        ([0.0, 2.0], -0.5, "inactive", [0, -1], 2.0, 0.0),
        ([3.0, 4.0], -2.0, "inactive", [-0.6, -0.8], 5.0, 0.0),
        ([-3.0, 4.0], -0.6, "inactive", [0.6, -0.8], 5.0, 0.0),  # touches, without a price
        ([-3.0, 4.0], -0.8, "inactive", [0.6, -0.8], 5.0, 0.0),
        ([-3.0, 4.0], 0.0, "active", [0, -1], 4.0, 3.0),
        ([-3.0, 4.0], 0.6, "active", [-0.6, -0.8], 5.0, 6.0),
        ([3.0, 4.0], 0.8, "active", [-0.8, -0.6], 20 / 3, 7 / 3),
        ([3.0, 4.0], 1.0, "recovery", [-1, 0], 1.0, 1.0),
        ([-3.0, 4.0], 7.0, "recovery", [-1, 0], 1.0, 1.0),
        ([0.0, 0.0], 7.0, "recovery", [-1, 0], 1.0, 1.0),
        ([0.0, 0.0], 0.25, "degenerate", [-0.25, 0], 0.0, 0.0),
        ([0.0, 0.0], -0.25, "degenerate", [0, 0], 0.0, 0.0),
        ([-2.0, 0.0], 0.25, "degenerate", [-0.25, 0], 0.0, 2.0),  # g against a
        ([-2.0, 0.0], -0.25, "degenerate", [0.25, 0], 0.0, 2.0),
        ([2.0, 0.0], 0.25, "inactive", [-1, 0], 2.0, 0.0),
    ],
)
def test_cases_by_hand(g, b, case, step, multiplier_kl, multiplier):
    answer = solve(g, A, [b])
    assert answer.case == case
    np.testing.assert_allclose(answer.step.numpy(), step, atol=1e-12)
    assert answer.multiplier_kl == pytest.approx(multiplier_kl, abs=1e-12)
    assert float(answer.multipliers) == pytest.approx(multiplier, abs=1e-12)


def test_the_published_formula_for_one_constraint():
    rng = np.random.default_rng(2)
    cases = Counter()
    for _ in range(200):
        g, a, _, metric, delta = draw(rng)
        a = a[:1]
        u, v = np.linalg.solve(metric, g), np.linalg.solve(metric, a[0])
        q, r, s = g @ u, g @ v, a[0] @ v
        if q == 0 or s == 0 or r * r > 0.99 * q * s:
            continue
        b = rng.uniform(-1.2, 1.2) * math.sqrt(2 * delta * s)
        big_a, big_b = q - r * r / s, 2 * delta - b * b / s
        if b > 0 and big_b < 0:
            case, x, lam, nu = "recovery", -math.sqrt(2 * delta / s) * v, math.sqrt(s / 2 / delta), 1.0
        elif b - r * math.sqrt(2 * delta / q) <= 0:
            case, x, lam, nu = "inactive", -math.sqrt(2 * delta / q) * u, math.sqrt(q / 2 / delta), 0.0
        else:
            case, lam = "active", math.sqrt(big_a / big_b)
            x, nu = -(b / s) * v - (u - r / s * v) / lam, (lam * b - r) / s
        answer = solve(g, a, [b], metric, delta)
        cases[case] += 1
        assert answer.case == case
        np.testing.assert_allclose(answer.step.numpy(), x, rtol=1e-7, atol=1e-9 * np.abs(x).max())
        assert answer.multiplier_kl == pytest.approx(lam, rel=1e-7)
        assert float(answer.multipliers) == pytest.approx(nu, rel=1e-6, abs=1e-12 * lam)
    assert len(cases) == 3


def test_no_gradient_and_exceeded_is_said():
    answer = solve([1.0, 1.0], [[0.0, 0.0]], [0.5])
    assert (answer.case, answer.step.tolist()) == ("degenerate", [0.0, 0.0])
    assert float(answer.predicted_constraint) == 0.5
    # The other constraint is still brought back to its limit.
    answer = solve([1.0, 1.0], [[0.0, 0.0], [2.0, 0.0]], [0.5, 0.5])
    assert answer.case == "degenerate"
    np.testing.assert_allclose(answer.step, [-0.25, 0.0], atol=1e-15)


def test_contradicting_constraints_split_the_difference():
    answer = solve([0.0, 1.0], [[1.0, 0.0], [-1.0, 0.0]], [0.5, 0.25])
    assert answer.case == "recovery"
    np.testing.assert_allclose(answer.step, [-0.125, 0.0], atol=1e-15)
    assert answer.multiplier_kl == 0.0
    np.testing.assert_allclose(answer.multipliers, [0.5, 0.5])


def test_recovery_is_in_units_of_each_constraint():
    """Scaling one constraint together with its surplus changes nothing."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        g, a = rng.standard_normal(5), rng.standard_normal((2, 5))
        b = rng.uniform(0.8, 2.0, 2) * np.linalg.norm(a, axis=1)
        unit = np.array([1.0, 1000.0])
        one, two = solve(g, a, b), solve(g, a * unit[:, None], b * unit)
        assert one.case == two.case
        np.testing.assert_allclose(one.step, two.step, atol=1e-10)


def test_invariances():
    rng = np.random.default_rng(4)
    for _ in range(100):
        g, a, b, metric, delta = draw(rng)
        base = solve(g, a, b, metric, delta)
        if base.case == "degenerate":
            continue
        size = float(base.step.abs().max())
        order = rng.permutation(len(b))
        same = [
            solve(1e6 * g, a, b, metric, delta),
            solve(g, 1e-6 * a, 1e-6 * b, metric, delta),
            solve(g, a[order], b[order], metric, delta),
            solve(g, np.vstack([a, a[:1]]), np.append(b, b[0]), metric, delta),
            solve(g, np.vstack([a, g]), np.append(b, -np.inf), metric, delta),
        ]
        for answer in same:
            assert answer.case == base.case
            value = float(g @ answer.step.numpy())
            if base.case != "recovery":
                assert value == pytest.approx(base.predicted_objective, rel=1e-6, abs=1e-12 * size)
                assert float((answer.step - base.step).abs().max()) < 1e-5 * size
        np.testing.assert_allclose(same[2].multipliers, base.multipliers[order], rtol=1e-5, atol=1e-9)


def test_slack_constraints_are_no_constraints():
    rng = np.random.default_rng(5)
    g, a = rng.standard_normal(6), rng.standard_normal((3, 6))
    free = solve(g, np.zeros((0, 6)), [])
    np.testing.assert_allclose(free.step, -g / np.linalg.norm(g), atol=1e-15)
    for b in ([-1e9] * 3, [-math.inf] * 3):
        answer = solve(g, a, b)
        assert answer.case == "inactive"
        np.testing.assert_allclose(answer.step, free.step, atol=1e-15)


def test_on_the_edge_of_infeasible_every_number_is_finite():
    """The surplus meets ``b^2 = 2 delta s`` to the last bit, or misses it by one rounding on either side."""
    for b in (math.nextafter(1.0, 0.0), 1.0, math.nextafter(1.0, 2.0)):
        answer = solve([-3.0, 4.0], A, [b])
        np.testing.assert_allclose(answer.step, [-1.0, 0.0], atol=1e-7)
        assert math.isfinite(answer.multiplier_kl)
        assert torch.isfinite(answer.multipliers).all()


def test_many_constraints():
    """Ten constraints bind at the optimum by construction."""
    rng = np.random.default_rng(6)
    for _ in range(5):
        a = np.linalg.qr(rng.standard_normal((20, 20)))[0][:10]
        a = a + 0.05 * rng.standard_normal(a.shape)
        x, nu, lam = rng.standard_normal(20), rng.uniform(0.5, 2.0, 10), 3.0
        x /= np.linalg.norm(x)
        answer = solve(-lam * x - nu @ a, a, -a @ x)
        assert answer.case == "active"
        np.testing.assert_allclose(answer.step, x, atol=1e-9)
        np.testing.assert_allclose(answer.multipliers, nu, rtol=1e-8)
        assert answer.multiplier_kl == pytest.approx(lam, rel=1e-8)


def test_float32_at_ten_thousand_parameters():
    rng = np.random.default_rng(7)
    g, a = rng.standard_normal(10_000) * 1e-3, rng.standard_normal((2, 10_000)) * 10
    answer = solve(g, a, [0.5, -0.1], kl_bound=0.01, dtype=torch.float32)
    assert answer.step.dtype == torch.float32
    assert answer.case == "active"
    assert 0.5 * float(answer.step.double().square().sum()) <= 0.01 * (1 + 1e-6)
    assert float(a[0] @ answer.step.double().numpy()) + 0.5 <= 1e-5


def test_parallel_up_to_float32_rounding_is_parallel():
    a = np.random.default_rng(8).standard_normal((1, 1000))
    answer = solve(-np.float32(1 / 3) * np.float32(a[0]), a, [0.5], dtype=torch.float32)
    assert answer.case == "degenerate"
    np.testing.assert_allclose(answer.step, -0.5 * a[0] / (a @ a.T).item(), rtol=1e-5, atol=1e-9)


def test_the_metric_is_applied_once_per_gradient_and_inputs_stay():
    calls = []

    def inverse(z):
        calls.append(z)
        return 0.5 * z

    g, a, b = torch.randn(4), torch.randn(2, 4), torch.randn(2)
    copies = [x.clone() for x in (g, a, b)]
    constrained_step(g, a, b, kl_bound=0.1, inverse_metric=inverse)
    assert len(calls) == 3
    assert all(torch.equal(x, y) for x, y in zip((g, a, b), copies, strict=True))


def test_coordinates_of_nearly_parallel_gradients_are_orthonormal():
    rng = np.random.default_rng(9)
    for angle in (1e-3, 1e-6, 1e-9):
        g, _, _, metric, _ = draw(rng)
        inverse = torch.tensor(np.linalg.inv(metric))
        a = torch.tensor(rng.standard_normal(len(g)))
        near = torch.stack([a, a + angle * torch.tensor(rng.standard_normal(len(g)))])
        basis = reduce(near[0] - angle * near[1].flip(0), near, inverse.mv)
        directions, matrix = basis.directions, torch.tensor(metric)
        assert len(directions) == min(3, len(g))
        gram = directions @ matrix @ directions.T
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=gram.dtype), rtol=0, atol=1e-11)
        torch.testing.assert_close(directions @ matrix, basis.duals, rtol=1e-6, atol=1e-9)


def test_refusals():
    ok = (np.ones(3), np.ones((1, 3)), np.ones(1))
    for kl_bound in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="kl_bound must be > 0"):
            solve(*ok, kl_bound=kl_bound)
    with pytest.raises(ValueError, match="a must have shape"):
        solve(ok[0], np.ones(3), ok[2])
    with pytest.raises(ValueError, match="b must have shape"):
        solve(ok[0], ok[1], np.ones(2))
    with pytest.raises(ValueError, match="g must be"):
        solve(np.ones((3, 1)), ok[1], ok[2])
    with pytest.raises(ValueError, match="positive definite"):
        solve(*ok, metric=-np.eye(3))
    for k, bad in enumerate((math.nan, math.inf, math.inf)):
        broken = [x.copy() for x in ok]
        broken[k].flat[0] = bad
        with pytest.raises(NonFiniteError, match="must be finite"):
            solve(*broken)
    with pytest.raises(NonFiniteError, match="inverse_metric"):
        constrained_step(*map(torch.tensor, ok), kl_bound=0.1, inverse_metric=lambda z: z * math.nan)
