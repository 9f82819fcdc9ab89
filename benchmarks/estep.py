"""Measure status, guarantees and time of ``solve_dual``; exit with 1 on a miss.

    python benchmarks/estep.py [--problems 1000] [--seed 0] [--out result.json]

Three parts:

1. Random problems are built from their optimum: weights of the optimal form,
   ``softmax((Q_r - lambda . Q_c) / eta)``, are chosen, and the KL bound and the thresholds are set to
   the values that these weights have. The optimality conditions of a convex problem are sufficient, so
   status and optimal value are known without any solver.
2. Small problems are compared with a conic solver (cvxpy with Clarabel), which also decides their status.
3. One solve is timed on 256 x 16 float32 inputs, single thread.

The benchmark does not call the solver's own helpers. "std" is the root-mean-square around the state means,
which is never larger than the standard deviation over all entries.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from fsrl_ext.functional.estep import EStepSolution, solve_dual
from fsrl_ext.report.files import write_json

TOLERANCE = 1e-6
TIME_BAR_MS = 1.0


@dataclass
class Case:
    """A problem, its status, and what is known of its optimum."""

    name: str
    status: str
    q_reward: np.ndarray  # [B, N]
    q_cost: np.ndarray  # [C, B, N]
    kl_bound: float
    threshold: np.ndarray  # [C]
    weights: np.ndarray | None = None  # [B, N], an optimal q
    violation: float | None = None  # least largest violation, if infeasible


@dataclass
class Tally:
    """Counts and worst values of one kind of problem."""

    count: int = 0
    wrong_status: int = 0
    kl_excess: float = -math.inf
    cost_excess: float = -math.inf
    gap: float = 0.0
    regret: float = -math.inf
    not_finite: int = 0
    steps: list[int] = field(default_factory=list)


# ------------------------------------------------------------------ independent reference formulas


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def kl_of(weights: np.ndarray) -> float:
    positive = np.where(weights > 0.0, weights, 1.0)
    return float(np.mean(np.sum(weights * np.log(positive * weights.shape[-1]), -1)))


def mean_under(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.mean(np.sum(weights * values, -1), -1)


def spread(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean((values - values.mean(-1, keepdims=True)) ** 2)))


def dual(case: Case, temperature: float, multipliers: np.ndarray) -> float:
    z = case.q_reward - np.tensordot(multipliers, case.q_cost, 1)
    highest = z.max(-1)
    log_mean = np.log(np.mean(np.exp((z - highest[:, None]) / temperature), -1))
    priced = sum(float(m * d) for m, d in zip(multipliers, case.threshold, strict=True) if np.isfinite(d))
    value = temperature * case.kl_bound + priced + np.mean(highest + temperature * log_mean)
    return float(value)


def boltzmann_with_kl(direction: np.ndarray, target: float) -> tuple[np.ndarray, float]:
    """Weights ``softmax(s direction)`` of a given KL, or half the largest KL if that is less."""
    greedy = direction >= direction.max(-1, keepdims=True)
    reachable = float(np.mean(np.log(direction.shape[-1] / greedy.sum(-1))))
    target = min(target, 0.5 * reachable)
    low, high = 0.0, 1.0
    while kl_of(softmax(high * direction)) < target:
        high *= 4.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if kl_of(softmax(middle * direction)) < target:
            low = middle
        else:
            high = middle
    weights = softmax(high * direction)
    return weights, kl_of(weights)


# ------------------------------------------------------------------ built from their optimum


def draw_q(rng: np.random.Generator, num_states: int, num_actions: int) -> np.ndarray:
    q = rng.standard_normal((num_states, num_actions))
    kind = rng.integers(6)
    if kind == 1:  # states of very different spread
        q *= 10.0 ** rng.uniform(-3, 3, (num_states, 1))
    elif kind == 2:  # ties
        q = np.round(2 * q)
    elif kind == 3:  # heavy tail
        q = rng.exponential(size=q.shape) ** 2
    elif kind == 4:  # rare indicator, like a cost; never flat
        q = (rng.random(q.shape) < 0.1).astype(float)
        q[0, 0], q[0, 1] = 1.0, 0.0
    if np.ptp(q, axis=-1).max() == 0.0:
        q[0, 0] += 1.0
    return q * 10.0 ** rng.uniform(-3, 3)


def build(kind: str, rng: np.random.Generator) -> Case:
    num_states, num_actions = int(rng.integers(1, 513)), int(rng.integers(2, 65))
    num_costs = int(rng.integers(1, 4))
    q_reward = draw_q(rng, num_states, num_actions)
    q_cost = np.stack([draw_q(rng, num_states, num_actions) for _ in range(num_costs)])
    if rng.random() < 0.3:
        offset = 1e4 if rng.random() < 0.3 else 10.0 ** rng.uniform(-2, 3)
        q_reward += offset * rng.standard_normal()
        q_cost += offset * rng.standard_normal((num_costs, 1, 1))
    units = np.array([spread(c) for c in q_cost])
    target = 10.0 ** rng.uniform(-3, 0)
    binding = rng.random(num_costs) < 0.6
    binding[rng.integers(num_costs)] = True
    prices = np.where(binding, 10.0 ** rng.uniform(-1.5, 1.5, num_costs), 0.0) / units
    margin = 10.0 ** rng.uniform(-4, 0, num_costs) * units
    zero_cost = np.zeros(num_costs)
    reward_direction = (q_reward - q_reward.mean(-1, keepdims=True)) / spread(q_reward)
    centred_cost = q_cost - q_cost.mean(-1, keepdims=True)

    def at(prices: np.ndarray, share: float, target: float) -> tuple[np.ndarray, float]:
        return boltzmann_with_kl(share * reward_direction - np.tensordot(prices, centred_cost, 1), target)

    if kind in ("slack", "infinite limit", "active"):
        used = prices if kind == "active" else zero_cost
        weights, kl = at(used, 1.0, target)
        threshold = mean_under(weights, q_cost) + np.where(used > 0.0, 0.0, margin)
        if kind == "infinite limit":
            threshold[rng.random(num_costs) < 0.7] = math.inf
            threshold[rng.integers(num_costs)] = math.inf
        status = "active" if kind == "active" else "slack"
        return Case(kind, status, q_reward, q_cost, kl, threshold, weights)
    if kind == "infeasible":
        weights, kl = at(prices, 0.0, target)
        least = 10.0 ** rng.uniform(-4, 0)
        stds = q_cost.std((1, 2))
        lowered = np.where(prices > 0.0, 1.0, rng.uniform(-1.0, 0.9, num_costs)) * least
        threshold = mean_under(weights, q_cost) - lowered * stds
        if rng.random() < 0.2:
            threshold[prices == 0.0] = math.inf
        return Case(kind, kind, q_reward, q_cost, kl, threshold, weights, least)
    if kind == "flat reward":
        q_reward = np.broadcast_to(q_reward[:, :1], q_reward.shape)
        q_reward = q_reward * (1.0 + 2e-16 * rng.integers(-1, 2, q_reward.shape))
        if rng.random() < 0.5:  # the costs are met by uniform weights
            weights = np.full(q_reward.shape, 1.0 / num_actions)
            threshold = mean_under(weights, q_cost) + margin
            return Case(kind, "flat", q_reward, q_cost, target, threshold, weights)
        weights, kl = at(prices, 0.0, target)
        threshold = mean_under(weights, q_cost) + np.where(prices > 0.0, 0.0, margin)
        return Case(kind, "flat", q_reward, q_cost, 1.5 * kl, threshold, weights)
    if kind == "flat cost":
        q_cost = np.broadcast_to(q_cost[:, :, :1], q_cost.shape).copy()
        weights, kl = at(zero_cost, 1.0, target)
        level = q_cost.mean((1, 2))
        step = margin * np.where(rng.random() < 0.5, 1.0, -1.0)
        status = "slack" if step[0] > 0.0 else "infeasible"
        return Case(kind, status, q_reward, q_cost, kl, level + step, weights)
    if kind == "saturated":  # the greedy q needs less KL than there is
        greedy = (q_reward >= q_reward.max(-1, keepdims=True)).astype(float)
        weights = greedy / greedy.sum(-1, keepdims=True)
        threshold = mean_under(weights, q_cost) + margin
        return Case(kind, kind, q_reward, q_cost, 1.2 * kl_of(weights), threshold, weights)
    assert kind == "saturated mix"  # no q needs more KL than there is; a cost stops the greedy one
    greedy = (q_reward >= q_reward.max(-1, keepdims=True)).astype(float)
    greedy /= greedy.sum(-1, keepdims=True)
    least = q_cost[0].min(-1).mean()
    threshold = np.full(num_costs, math.inf)
    threshold[0] = least + rng.uniform(0.05, 0.95) * (mean_under(greedy, q_cost[0]) - least)
    bound = 1.1 * math.log(num_actions)
    return Case(kind, "saturated", q_reward, q_cost, bound, threshold)


KINDS = {
    "slack": 0.16,
    "active": 0.26,
    "infeasible": 0.2,
    "infinite limit": 0.08,
    "flat reward": 0.1,
    "flat cost": 0.06,
    "saturated": 0.08,
    "saturated mix": 0.06,
}


def known_problems(count: int, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    names = list(KINDS)
    for kind in rng.choice(names, size=count, p=list(KINDS.values())):
        yield build(str(kind), rng)


def solve_case(case: Case) -> EStepSolution:
    return solve_dual(
        torch.from_numpy(np.ascontiguousarray(case.q_reward)),
        torch.from_numpy(case.q_cost),
        kl_bound=case.kl_bound,
        cost_threshold=torch.from_numpy(case.threshold),
    )


def tally(case: Case, solution: EStepSolution, into: Tally) -> None:
    weights = solution.weights.numpy()
    multipliers = solution.multipliers.numpy()
    numbers = [weights, multipliers, solution.expected_cost.numpy()]
    scalars = [solution.temperature, solution.kl, solution.kkt_residual]
    into.count += 1
    into.steps.append(solution.num_steps)
    into.wrong_status += solution.status != case.status
    into.not_finite += not (all(np.isfinite(x).all() for x in numbers) and np.isfinite(scalars).all())
    into.kl_excess = max(into.kl_excess, kl_of(weights) / case.kl_bound - 1.0)
    cost = mean_under(weights, case.q_cost)
    if case.status == "infeasible":
        if case.violation is not None:
            largest = np.max((cost - case.threshold) / case.q_cost.std((1, 2)))
            into.regret = max(into.regret, float(largest - case.violation))
        return
    units = np.array([spread(c) for c in case.q_cost])
    # A flat cost has no spread: its own rounding is the unit that is left.
    units = np.maximum(units, 1e-9 * np.abs(case.q_cost).max((1, 2)))
    into.cost_excess = max(into.cost_excess, float(np.max((cost - case.threshold) / units)))
    reward = float(mean_under(weights, case.q_reward))
    unit = case.q_reward.std() if case.status == "flat" else spread(case.q_reward)
    unit = max(unit, 1e-9 * float(np.abs(case.q_reward).max()))
    gap = abs(dual(case, solution.temperature, multipliers) - reward)
    into.gap = max(into.gap, gap / unit)
    if case.weights is not None:
        best = float(mean_under(case.weights, case.q_reward))
        into.regret = max(into.regret, (best - reward) / unit)


def run_known(count: int, seed: int) -> tuple[dict[str, Tally], bool]:
    tallies: dict[str, Tally] = {kind: Tally() for kind in KINDS}
    for case in known_problems(count, seed):
        tally(case, solve_case(case), tallies[case.name])
    ok = True
    print(f"\n{count} problems built from their optimum (worst values; bar {TOLERANCE:g})")
    head = f"{'kind':16s}{'count':>6s}{'wrong':>7s}{'NaN':>5s}{'KL/eps-1':>10s}{'(E-d)/std':>11s}"
    print(head + f"{'gap/std':>10s}{'regret':>10s}{'passes: median':>16s}{'max':>6s}")
    for kind, t in tallies.items():
        if not t.count:
            continue
        ok &= t.wrong_status == 0 and t.not_finite == 0
        ok &= max(t.kl_excess, t.cost_excess, t.gap, t.regret) <= TOLERANCE
        row = f"{kind:16s}{t.count:6d}{t.wrong_status:7d}{t.not_finite:5d}{t.kl_excess:10.1e}"
        row += f"{t.cost_excess:11.1e}{t.gap:10.1e}{t.regret:10.1e}"
        print(row + f"{np.median(t.steps):16.0f}{max(t.steps):6d}")
    return tallies, ok


# ------------------------------------------------------------------ conic solver


def conic(case: Case) -> tuple[str, float]:
    """Status and optimal value (reward, or violation) by Clarabel; "unclear" near a border."""
    import cvxpy as cp

    num_states, num_actions = case.q_reward.shape
    q = cp.Variable((num_states, num_actions), nonneg=True)
    finite = np.flatnonzero(np.isfinite(case.threshold))
    stds = case.q_cost.std((1, 2))
    violations = [
        (cp.sum(cp.multiply(q, case.q_cost[m])) / num_states - case.threshold[m]) / stds[m] for m in finite
    ]
    ball = [
        cp.sum(q, axis=1) == 1,
        cp.sum(cp.rel_entr(q, 1.0 / num_actions)) <= num_states * case.kl_bound,
    ]
    worst = cp.Problem(cp.Minimize(cp.max(cp.hstack(violations))), ball)
    worst.solve(solver="CLARABEL")
    if abs(worst.value) < 1e-4:
        return "unclear", 0.0
    if worst.value > 0.0:
        return "infeasible", float(worst.value)
    unit = spread(case.q_reward)
    reward = cp.sum(cp.multiply(q, case.q_reward / unit)) / num_states
    limits = [v <= 0.0 for v in violations]
    best = cp.Problem(cp.Maximize(reward), [*ball, *limits])
    best.solve(solver="CLARABEL")
    prices = [float(limit.dual_value) for limit in limits]
    price_of_kl = float(ball[1].dual_value) * num_states
    if any(1e-6 < p < 1e-3 for p in [*prices, price_of_kl]):
        return "unclear", 0.0
    status = "slack" if max(prices) < 1e-3 else "active"
    return ("saturated" if price_of_kl < 1e-3 else status), float(best.value)


def run_conic(count: int, seed: int) -> tuple[dict[str, object], bool]:
    rng = np.random.default_rng(seed)
    seen: dict[str, int] = {}
    wrong, worst, done = 0, 0.0, 0
    while done < count:
        num_costs = 1 + done % 3
        shape = (int(rng.integers(2, 7)), int(rng.integers(2, 7)))
        q_reward = rng.standard_normal(shape)
        q_cost = rng.standard_normal((num_costs, *shape))
        quantile = rng.uniform(-0.6, 0.15, num_costs)
        threshold = q_cost.mean((1, 2)) + quantile * q_cost.std((1, 2))
        if rng.random() < 0.1 and num_costs > 1:
            threshold[0] = math.inf
        bound = 10.0 ** rng.uniform(-2, 0)
        case = Case("conic", "", q_reward, q_cost, bound, threshold)
        case.status, value = conic(case)
        if case.status == "unclear":
            continue
        done += 1
        # The conic solver gets the well-scaled problem, and the solver under test gets it in other units.
        units, prices = 10.0 ** rng.uniform(-3, 3), 10.0 ** rng.uniform(-3, 3, num_costs)
        scaled = replace(
            case,
            q_reward=units * q_reward,
            q_cost=prices[:, None, None] * q_cost,
            threshold=prices * threshold,
        )
        solution = solve_case(scaled)
        wrong += solution.status != case.status
        seen[case.status] = seen.get(case.status, 0) + 1
        weights = solution.weights.numpy()
        if case.status == "infeasible":
            cost = mean_under(weights, q_cost)
            reached = float(np.max((cost - threshold) / q_cost.std((1, 2))))
        else:
            reached = float(mean_under(weights, q_reward)) / spread(q_reward)
        worst = max(worst, abs(reached - value))
    print(f"\n{count} small problems against Clarabel: {dict(sorted(seen.items()))}")
    print(f"  wrong status {wrong}, largest difference of the optimal value {worst:.1e} std")
    # The conic solver's own tolerance is 1e-8 on its scaled problem; 1e-5 leaves it room.
    return {"seen": seen, "wrong": wrong, "difference": worst}, wrong == 0 and worst <= 1e-5


# ------------------------------------------------------------------ time


def timed_case(status: str, num_costs: int, kl_bound: float, rng: np.random.Generator) -> Case:
    """256 x 16 float32 inputs whose costs are correlated with the reward."""
    q_reward = rng.standard_normal((256, 16))
    q_cost = 0.5 * q_reward + rng.standard_normal((num_costs, 256, 16))
    q_reward = q_reward.astype(np.float32).astype(np.float64)
    q_cost = q_cost.astype(np.float32).astype(np.float64)
    mpo, _ = boltzmann_with_kl(q_reward, kl_bound)
    cheap, _ = boltzmann_with_kl(-q_cost.sum(0), kl_bound)
    free, least = mean_under(mpo, q_cost), mean_under(cheap, q_cost)
    place = {"slack": -0.2, "active": 0.5, "infeasible": 1.2}[status]
    return Case(status, status, q_reward, q_cost, kl_bound, free + place * (least - free))


def run_timing(repeats: int, seed: int) -> tuple[list[dict[str, object]], bool]:
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    ok = True
    print(f"\ntime per solve, 256 x 16 float32, one thread (bar {TIME_BAR_MS} ms, one cost)")
    print(f"{'costs':>5s} {'eps':>5s} {'status':12s}{'ms':>9s}{'p90':>7s}")
    for num_costs in (1, 2, 3):
        for kl_bound in (0.1, 0.02):
            for status in ("slack", "active", "infeasible"):
                times = []
                for _ in range(10):
                    case = timed_case(status, num_costs, kl_bound, rng)
                    q_reward = torch.from_numpy(case.q_reward).float()
                    q_cost = torch.from_numpy(case.q_cost).float()
                    limits = {"kl_bound": kl_bound, "cost_threshold": torch.from_numpy(case.threshold)}
                    for _ in range(repeats):
                        begin = time.perf_counter()
                        solution = solve_dual(q_reward, q_cost, **limits)
                        times.append(1e3 * (time.perf_counter() - begin))
                        ok &= solution.status == status
                median, p90 = float(np.median(times)), float(np.quantile(times, 0.9))
                print(f"{num_costs:5d} {kl_bound:5.2f} {status:12s}{median:9.3f}{p90:7.3f}")
                rows.append(
                    {"costs": num_costs, "kl_bound": kl_bound, "status": status, "ms": median, "p90_ms": p90}
                )
                ok &= num_costs > 1 or median <= TIME_BAR_MS
    return rows, ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--conic", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="write the numbers as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)

    tallies, known_ok = run_known(args.problems, args.seed)
    conic_result, conic_ok = run_conic(args.conic, args.seed + 1)
    timing, timing_ok = run_timing(args.repeats, args.seed + 2)
    passed = {"known": bool(known_ok), "conic": bool(conic_ok), "timing": bool(timing_ok)}
    print("\n" + ", ".join(f"{part} {'ok' if ok else 'MISSED'}" for part, ok in passed.items()))
    if args.out is not None:
        known = {
            kind: {key: value for key, value in vars(t).items() if key != "steps"}
            for kind, t in tallies.items()
            if t.count
        }
        result = {"known": known, "conic": conic_result, "timing": timing, "passed": passed}
        write_json(args.out, json.loads(json.dumps(result, default=float)))
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
