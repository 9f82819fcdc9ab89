"""Compare the constrained step with a conic solver and time both backends; exit with 1 on a miss.

    python benchmarks/constrained_step.py [--problems 1000] [--seed 0] [--out result.json]

The problems are random, with one to three constraints, a dense positive definite metric (condition up to
1e4), both signs of every quantity, parallel, nearly parallel (angles down to 1e-5) and zero gradients. The
exact step of every problem is compared with cvxpy and Clarabel, which also decide the case:

- blocked: a zero gradient and ``b > 0``;
- recovery: the least ``max_i (b_i + a_i.x) / sqrt(s_i)`` in the trust region is positive;
- flat: a trust region with twice the radius does not improve the objective;
- inactive: the step without constraints is as good as that with them; active: it is better.

Errors of the objective are relative to ``|g.x|``, and to ``sqrt(2 delta q)`` (the most that any step can
gain) where ``|g.x|`` is below 1e-3 of that. Constraints are in units of ``sqrt(2 delta s_i)``. The benchmark
does not call the library's helpers. It also measures, for both backends, the time of one step and of one
backward product at 10,000 parameters without a metric, single thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cvxpy as cp
import numpy as np
import torch

from fsrl_ext.functional.constrained_step import ConstrainedStep, StepExpressions, constrained_step
from fsrl_ext.report.files import in_json, write_json

TOLERANCE = 1e-6
# The solver's own accuracy is about 1e-9: below this, two optimal values are the same.
SAME = 1e-7


@dataclass
class Problem:
    """``g [P]``, ``a [m, P]``, ``b [m]``, ``metric [P, P]`` and the bound; ``kind`` says how it was drawn."""

    kind: str
    g: np.ndarray
    a: np.ndarray
    b: np.ndarray
    metric: np.ndarray
    kl_bound: float


def draw(rng: np.random.Generator) -> Problem:
    size, m = int(rng.integers(2, 13)), int(rng.integers(1, 4))
    rotation = np.linalg.qr(rng.standard_normal((size, size)))[0]
    metric = rotation * 10.0 ** rng.uniform(-2, 2, size) @ rotation.T
    metric = 0.5 * (metric + metric.T)
    kl_bound = 10.0 ** rng.uniform(-4, 0)
    g = rng.standard_normal(size) * 10.0 ** rng.uniform(-2, 2)
    a = rng.standard_normal((m, size)) * 10.0 ** rng.uniform(-2, 2, (m, 1))
    kind = str(rng.choice(["plain", "near", "parallel", "zero"], p=[0.5, 0.25, 0.15, 0.1]))
    sign = rng.choice([-1.0, 1.0])
    angle = 10.0 ** rng.uniform(-5, -1) if kind == "near" else 0.0
    if kind in ("near", "parallel"):
        # A multiple by a power of two is parallel to the last bit.
        factor = sign * 2.0 ** rng.integers(-2, 3)
        copy = factor * (a[0] + angle * np.abs(a[0]).max() * rng.standard_normal(size))
        if m > 1 and rng.random() < 0.5:
            a[1] = copy
        else:
            g = copy
    elif kind == "zero":
        if rng.random() < 0.5:
            g = np.zeros(size)
        else:
            a[rng.integers(m)] = 0.0
    reach = np.sqrt(2.0 * kl_bound * np.einsum("ip,pq,iq->i", a, np.linalg.inv(metric), a))
    scale = np.where(reach > 0.0, reach, 1.0)
    b = rng.uniform(-1.3, 1.3, m) * scale * rng.choice([0.1, 1.0], m)
    b[rng.random(m) < 0.1] = 0.0
    return Problem(kind, g, a, b, metric, kl_bound)


class Conic:
    """The problem in ``y = L^T x / sqrt(2 delta)``, ``H = L L^T``: unit ball, rows and objective."""

    def __init__(self, problem: Problem) -> None:
        self.root = np.linalg.cholesky(problem.metric)
        self.radius = math.sqrt(2.0 * problem.kl_bound)
        self.gain, self.g = self._unit(problem.g[None])
        self.reach, self.a = self._unit(problem.a)
        self.b = problem.b / np.where(self.reach > 0.0, self.reach, 1.0)
        self.moves = self.reach > 0.0

    def _unit(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        white = np.linalg.solve(self.root, vectors.T).T
        size = np.linalg.norm(white, axis=1)
        return size * self.radius, white / np.where(size > 0.0, size, 1.0)[:, None]

    def _minimise(self, objective, constraints) -> float:
        program = cp.Problem(cp.Minimize(objective), constraints)
        tight = {f"tol_{name}": 1e-10 for name in ("gap_abs", "gap_rel", "feas")}
        program.solve(solver=cp.CLARABEL, **tight)
        return float(program.value) if program.status in ("optimal", "optimal_inaccurate") else math.nan

    def violation(self) -> float:
        """Return the least largest violation over the constraints that can move; ``-inf`` without any."""
        if not self.moves.any():
            return -math.inf
        y = cp.Variable(len(self.root))
        return self._minimise(cp.max(self.b[self.moves] + self.a[self.moves] @ y), [cp.norm(y) <= 1.0])

    def objective(self, radius: float = 1.0, constrained: bool = True) -> float:
        y = cp.Variable(len(self.root))
        limits = [cp.norm(y) <= radius]
        if constrained:
            limits.append(self.b + self.a @ y <= 0.0)
        return self._minimise(self.g[0] @ y, limits)

    def shortest(self) -> float:
        y = cp.Variable(len(self.root))
        return self._minimise(cp.sum_squares(y), [self.b[self.moves] + self.a[self.moves] @ y <= 0.0])


def judge(problem: Problem, step: ConstrainedStep) -> tuple[str, dict[str, float]]:
    """Return the expected case (empty if the solver cannot tell) and the errors."""
    conic = Conic(problem)
    x = step.step.numpy()
    y = conic.root.T @ x / conic.radius
    excess = conic.b + conic.a @ y
    errors = {"kl": max(float(y @ y) - 1.0, 0.0)}
    blocked = bool((~conic.moves & (problem.b > 0.0)).any())
    least = conic.violation()
    if abs(least) < SAME:
        return "", errors
    if least > 0.0:
        errors["violation"] = abs(float(excess[conic.moves].max()) - least)
        return "degenerate" if blocked else "recovery", errors
    errors["constraint"] = max(float(excess[conic.moves].max(initial=0.0)), 0.0)
    if blocked or not problem.g.any():
        errors["length"] = abs(float(y @ y) - (conic.shortest() if conic.moves.any() else 0.0))
        return "degenerate", errors
    best, free, wide = conic.objective(), -1.0, conic.objective(2.0)
    value = float(conic.g[0] @ y)
    errors["objective"] = abs(value - best) / max(abs(best), 1e-3)
    if abs(best - free) < SAME:
        return "inactive", errors
    return "degenerate" if abs(best - wide) < SAME else "active", errors


def box(step: StepExpressions) -> list[cp.Constraint]:
    """A convex set for the timings."""
    return [cp.norm_inf(step.coordinates) <= 0.5]


def time_at(parameters: int, m: int, repeats: int = 50, **settings: Any) -> dict[str, float]:
    """Return the milliseconds of one step with an active constraint and of one backward product.

    ``first`` is the first call, which compiles the programs of a conic backend; the others are medians.
    """
    rng = torch.Generator().manual_seed(0)
    g, a = torch.randn(parameters, generator=rng), torch.randn(m, parameters, generator=rng)
    b = torch.full((m,), 0.05) * a.norm(dim=1)
    steps, products = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step = constrained_step(g, a, b, kl_bound=0.01, **settings)
        middle = time.perf_counter()
        step.vjp(g)
        steps.append(1e3 * (middle - start))
        products.append(1e3 * (time.perf_counter() - middle))
    times = {"first": steps[0], "step": np.median(steps[1:]), "backward": np.median(products[1:])}
    return {name: round(float(value), 2) for name, value in times.items()}


def timings() -> dict[str, dict[str, float]]:
    """Time both backends at 10,000 parameters, and the conic one with a convex set as well."""
    backends: dict[str, dict[str, Any]] = {
        "exact": {},
        "cvxpylayers": {"backend": "cvxpylayers"},
        "cvxpylayers with a set": {"backend": "cvxpylayers", "extra_constraints": box},
    }
    return {
        f"{name}, {m} constraint{'s' * (m > 1)}": time_at(10_000, m, **settings)
        for name, settings in backends.items()
        for m in (1, 2, 3)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    cases: Counter[str] = Counter()
    worst: Counter[str] = Counter()
    unclear, misses = 0, []
    for index in range(args.problems):
        problem = draw(rng)
        inverse = torch.tensor(np.linalg.inv(problem.metric))
        step = constrained_step(
            torch.tensor(problem.g),
            torch.tensor(problem.a),
            torch.tensor(problem.b),
            kl_bound=problem.kl_bound,
            inverse_metric=inverse.mv,
        )
        cases[f"{len(problem.b)} {step.case}"] += 1
        expected, errors = judge(problem, step)
        unclear += not expected
        for name, error in errors.items():
            worst[name] = max(worst[name], error)
        if expected not in ("", step.case) or not max(errors.values()) <= TOLERANCE:
            misses.append(f"{index} ({problem.kind}): {step.case}, expected {expected or '?'}, {errors}")
    result = {
        "problems": args.problems,
        "seed": args.seed,
        "cases": dict(sorted(cases.items())),
        "worst_error": {name: float(f"{value:.2e}") for name, value in worst.items()},
        "case_unclear_to_the_solver": unclear,
        "misses": misses,
        "milliseconds_at_10000_parameters": timings(),
    }
    print(json.dumps(in_json(result), indent=2, allow_nan=False))
    if args.out:
        write_json(args.out, result)
    sys.exit(1 if misses else 0)


if __name__ == "__main__":
    main()
