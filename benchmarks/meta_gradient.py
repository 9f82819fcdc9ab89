"""Measure time and memory of one meta-iteration's gradients; exit with 1 if a bar is missed.

    python benchmarks/meta_gradient.py [--rounds 5] [--sample 16] [--json result.json]

The meta-iteration has three tasks, K = 3 inner steps, 3,000 steps per batch, and a tanh policy (24, 12) with
a log standard deviation that is the same in all states: 40 observations and 2 actions make exactly 1,312
parameters. Data is drawn from the policy; advantages are random numbers with a mean of zero in place of a
critic's, and limits are placed so that constraints bind. The clock covers all that is neither data nor
critics: inner gradients, constrained steps and their line searches, the cotangents after the adaptation, the
reverse sweep, the outer step, and its acceptance (KL and one new adaptation of every task). Times are
wall-clock, one thread, float32; the Fisher metric takes conjugate gradient with 15 iterations, damping 0.1.

The peer is the same Euclidean step through cvxpylayers (all parameters, diffcp, SCS) and one backward pass
per parameter: the whole Jacobian ``d phi^{k+1} / d phi^k`` of every inner step, and nothing else of a
meta-iteration. Every round times a sample of its rows in one of the nine steps, from which the total is
extrapolated. ``adjoints`` counts the solver's backward passes alone; ``with the network`` also counts those
through the gradients of the surrogates, which the Jacobian needs. Both are divided by the total of all our
work, Euclidean, and by our reverse sweep alone; the bar is for the Jacobian against the total. With a Fisher
metric there is no peer, because its program would hold a P x P matrix.

Memory is the growth of the process's peak (Linux) over one adaptation and sweep on 300 rows, in one process
per size, beside the size of a P x P matrix.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call

from fsrl_ext.functional.conjugate_gradient import InverseMetric, flatten, unflatten
from fsrl_ext.functional.constrained_step import constrained_step
from fsrl_ext.functional.meta_gradient import (
    InnerStep,
    inner_step,
    meta_gradient,
    replay,
    surrogate_gradients,
)
from fsrl_ext.functional.trust_region import Surrogates, line_search
from fsrl_ext.policy.meta_adaptation import MovingFisher
from fsrl_ext.policy.onpolicy.trust_region import TrustRegionConfig
from fsrl_ext.report.files import write_json

OBS, ACT, TASKS, STEPS, ROWS, KL_BOUND = 40, 2, 3, 3, 3000, 0.01
BARS = {"euclidean": 0.5, "fisher": 3.0}
FACTOR = 100.0
WIDTHS = ((24, 12), (96, 48), (256, 128), (768, 384))


class Policy(nn.Module):
    def __init__(self, widths: tuple[int, int]) -> None:
        super().__init__()
        first, second = widths
        self.body = nn.Sequential(
            nn.Linear(OBS, first), nn.Tanh(), nn.Linear(first, second), nn.Tanh(), nn.Linear(second, ACT)
        )
        self.log_std = nn.Parameter(torch.full((ACT,), -0.5))

    def forward(self, obs: Tensor) -> tuple[tuple[Tensor, Tensor], None]:
        mean = self.body(obs)
        return (mean, self.log_std.exp().expand_as(mean)), None


class Batch:
    """Data drawn at ``phi``, with its surrogates and KL divergence."""

    def __init__(self, policy: Policy, phi: Tensor, rows: int) -> None:
        self.policy, self.like = policy, dict(policy.named_parameters())
        self.obs = torch.randn(rows, OBS)
        with torch.no_grad():
            self.old = self.at(phi)
            self.act = self.old.sample()
            self.log_old = self.old.log_prob(self.act).sum(dim=1)
        advantages = torch.randn(2, rows)
        self.advantages = advantages - advantages.mean(dim=1, keepdim=True)

    def at(self, phi: Tensor) -> Normal:
        (mean, std), _ = functional_call(self.policy, unflatten(phi, self.like), (self.obs,))
        return Normal(mean, std, validate_args=False)

    def loss(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        return self._loss(self.at(phi))

    def _loss(self, new: Normal) -> tuple[Tensor, Tensor]:
        ratio = (new.log_prob(self.act).sum(dim=1) - self.log_old).exp()
        reward, cost = (self.advantages @ ratio) / len(ratio)
        return -reward, cost[None]

    def kl(self, phi: Tensor) -> Tensor:
        return kl_divergence(self.old, self.at(phi)).sum(dim=1).mean()

    def surrogates(self, phi: Tensor) -> Surrogates:
        new = self.at(phi)
        loss, costs = self._loss(new)
        kl = kl_divergence(self.old, new).sum(dim=1).mean()
        return Surrogates(reward=-float(loss), costs=(float(costs[0]),), kl=float(kl))


def fisher(batches: list[Batch]) -> MovingFisher:
    return MovingFisher(batches[0].policy, batches, TrustRegionConfig())


def inverse(batches: list[Batch], phi: Tensor, metric: str) -> InverseMetric | None:
    return None if metric == "euclidean" else fisher(batches).inverse(phi)


def surplus_for(g: Tensor, a: Tensor, apply: InverseMetric | None) -> Tensor:
    """Return a surplus that binds, half way between the free step's effect and the largest one."""
    u, v = (x if apply is None else apply(x) for x in (g, a))
    radius = math.sqrt(2 * KL_BOUND)
    return 0.5 * radius * (g @ v / (g @ u).sqrt() + (a @ v).sqrt())[None]


def adapt(task: list[Batch], theta: Tensor, surplus: list[Tensor], metric: str) -> list[InnerStep]:
    """Take K inner steps with line searches.

    The search has a wide KL bound, because a Euclidean ball of the same radius may be larger than the bound.
    """
    phi, steps = theta, []
    for batch, b in zip(task, surplus, strict=True):
        moving = None if metric == "euclidean" else fisher([batch])
        step = inner_step(phi, batch.loss, b, kl_bound=KL_BOUND, metric=moving)
        trial = phi.clone()
        search = line_search(
            [trial],
            step.step.step,
            functools.partial(batch.surrogates, trial),
            kl_bound=0.1,
            cost_slack=(max(-float(b), 0.0),),
        )
        steps.append(dataclasses.replace(step, fraction=search.fraction))
        phi = steps[-1].adapted
    return steps


def draw(policy: Policy, rows: int, metric: str) -> tuple[list[list[Batch]], list[list[Tensor]], list[Batch]]:
    """Draw a meta-iteration's data: per task K batches, their limits, one batch after the adaptation."""
    theta = flatten(policy.parameters()).detach()
    tasks, limits, after = [], [], []
    for _ in range(TASKS):
        phi, batches, surplus = theta, [], []
        for _ in range(STEPS):
            batch = Batch(policy, phi, rows)
            g, a, _ = surrogate_gradients(batch.loss, phi)
            b = surplus_for(g, a[0], inverse([batch], phi, metric))
            phi = adapt([batch], phi, [b], metric)[0].adapted
            batches.append(batch)
            surplus.append(b)
        tasks.append(batches)
        limits.append(surplus)
        after.append(Batch(policy, phi, rows))
    return tasks, limits, after


def meta_iteration(
    theta: Tensor, tasks: list[list[Batch]], limits: list[list[Tensor]], after: list[Batch], metric: str
) -> tuple[dict[str, float], Counter[str]]:
    """Return the seconds per stage and the cases of the inner steps."""
    clock, seconds = time.perf_counter(), {}

    def stage(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[name], clock = now - clock, now

    adapted = [adapt(*task, metric=metric) for task in zip(tasks, [theta] * TASKS, limits, strict=True)]
    stage("inner steps")
    cotangents = []
    for steps, batch in zip(adapted, after, strict=True):
        g, a, _ = surrogate_gradients(batch.loss, steps[-1].adapted)
        cotangents.append(torch.cat([g[None], a]))
    stage("cotangents")
    sweeps = [meta_gradient(y, steps) for y, steps in zip(cotangents, adapted, strict=True)]
    stage("reverse sweep")
    mean = torch.stack([x.gradients for x in sweeps]).mean(dim=0)
    support = [task[0] for task in tasks]
    outer = constrained_step(
        mean[0],
        mean[1:],
        torch.zeros(1),
        kl_bound=KL_BOUND,
        inverse_metric=inverse(support, theta, metric),
    )
    stage("outer step")
    new = theta + outer.step
    with torch.no_grad():
        distance = statistics.mean(float(batch.kl(new)) for batch in support)
    finals = [float(b.loss(replay(new, s))[0]) for b, s in zip(after, adapted, strict=True)]
    assert math.isfinite(distance + sum(finals))
    stage("acceptance")
    return seconds, sum((x.cases for x in sweeps), Counter())


class Peer:
    """The Jacobian of an inner step through cvxpylayers in all parameters, one row per backward pass."""

    def __init__(self, policy: Policy, rows: int) -> None:
        import cvxpy as cp
        from cvxpylayers.torch import CvxpyLayer

        self.phi = flatten(policy.parameters()).detach()
        self.batch = Batch(policy, self.phi, rows)
        g, a, _ = surrogate_gradients(self.batch.loss, self.phi)
        self.b = surplus_for(g, a[0], None)
        # x is the step relative to the trust region's radius, for gradients of unit length.
        x = cp.Variable(len(self.phi))
        objective, row, offset = cp.Parameter(len(self.phi)), cp.Parameter(len(self.phi)), cp.Parameter(1)
        limits = [row @ x + offset <= 0.0, cp.norm(x) <= 1.0]
        problem = cp.Problem(cp.Minimize(objective @ x), limits)
        parameters = [objective, row, offset]
        self.layer = CvxpyLayer(problem, parameters=parameters, variables=[x], solver=cp.DIFFCP)

    def step(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The Euclidean step ``[P]`` of ``g [P]``, ``a [P]`` and ``b [1]``, with gradient."""
        radius = math.sqrt(2 * KL_BOUND)
        settings = {"solve_method": "SCS", "eps": 1e-11, "max_iters": 200_000, "mode": "lsqr"}
        (x,) = self.layer(g / g.norm(), a / a.norm(), b / (radius * a.norm()), solver_args=settings)
        return radius * x

    def __call__(self, sample: int) -> dict[str, float]:
        """Return the seconds for all inner steps of a meta-iteration, from a sample of rows of one."""
        leaf = self.phi.clone().requires_grad_()
        g, a, costs = surrogate_gradients(self.batch.loss, leaf, create_graph=True)
        leaves = [x.detach().double().requires_grad_() for x in (g, a[0], self.b)]
        start = time.perf_counter()
        step = self.step(*leaves)
        forward = time.perf_counter() - start
        exact = constrained_step(g.detach(), a.detach(), self.b, kl_bound=KL_BOUND)
        assert exact.case == "active"
        assert float((step - exact.step).norm()) < 1e-4 * float(exact.step.norm())
        adjoint, through = [], []
        for index in torch.linspace(0, len(leaf) - 1, sample).long():
            row = torch.zeros_like(step)
            row[index] = 1.0
            start = time.perf_counter()
            g_bar, a_bar, b_bar = torch.autograd.grad(step, leaves, row, retain_graph=True)
            adjoint.append(time.perf_counter() - start)
            bars = [g_bar.float(), a_bar.float()[None], b_bar.float()]
            torch.autograd.grad([g, a, costs], leaf, bars, retain_graph=True)
            through.append(time.perf_counter() - start)
        scale = TASKS * STEPS
        alone = scale * (forward + len(leaf) * statistics.mean(adjoint))
        return {
            "adjoints": alone,
            "with the network": scale * (forward + len(leaf) * statistics.mean(through)),
            "ms_per_adjoint": 1e3 * statistics.mean(adjoint),
        }


def timing(rounds: int, sample: int) -> dict[str, Any]:
    policy = Policy(WIDTHS[0])
    theta = flatten(policy.parameters()).detach()
    data = {metric: draw(policy, ROWS, metric) for metric in BARS}
    peer = Peer(policy, ROWS)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*BARS, "cvxpylayers")}
    cases = {}
    for turn in range(rounds + 1):
        for metric in BARS:
            seconds, cases[metric] = meta_iteration(theta, *data[metric], metric=metric)
            seconds["total"] = sum(seconds.values())
            runs[metric].append(seconds)
        runs["cvxpylayers"].append(peer(sample))
        if turn == 0:
            # The first round is a warm-up of the conic program and of the memory allocator.
            for values in runs.values():
                values.clear()
    medians = {
        name: {key: round(statistics.median(run[key] for run in values), 4) for key in values[0]}
        for name, values in runs.items()
    }
    ours = medians["euclidean"]
    factors = {
        f"{peer}, against our {part}": round(medians["cvxpylayers"][peer] / ours[part], 1)
        for peer in ("adjoints", "with the network")
        for part in ("total", "reverse sweep")
    }
    return {
        "parameters": len(theta),
        "rounds": rounds,
        "sampled_rows_per_round": sample,
        "median_seconds": medians,
        "runs": {
            name: [run.get("total", run.get("adjoints")) for run in values] for name, values in runs.items()
        },
        "cases": {name: dict(value) for name, value in cases.items()},
        "factor": factors,
    }


def peak_growth(widths: tuple[int, int], metric: str) -> dict[str, float]:
    """Return the megabytes by which the peak grows over one task's adaptation and sweep."""
    policy = Policy(widths)
    theta = flatten(policy.parameters()).detach()
    warm = Batch(policy, theta, 8)
    meta_gradient(torch.randn(2, len(theta)), adapt([warm], theta, [torch.zeros(1)], metric)[:1])
    batches = [Batch(policy, theta, 300) for _ in range(STEPS)]
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    steps = adapt(batches, theta, [torch.zeros(1)] * STEPS, metric)
    steps = [dataclasses.replace(step, fraction=max(step.fraction, 0.1)) for step in steps]
    meta_gradient(torch.randn(2, len(theta)), steps)
    return {"parameters": len(theta), "peak_growth_mb": (_memory("VmHWM") - before) / 1024}


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def memory() -> dict[str, Any]:
    result: dict[str, Any] = {}
    for metric in BARS:
        rows = []
        for widths in WIDTHS:
            command = [sys.executable, __file__, "--peak", metric, *map(str, widths)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout)
            row["p_by_p_mb"] = 4 * row["parameters"] ** 2 / 2**20
            rows.append({key: round(value, 1) for key, value in row.items()})
        last, before = rows[-1], rows[-2]
        growth = math.log(last["peak_growth_mb"] / before["peak_growth_mb"])
        exponent = growth / math.log(last["parameters"] / before["parameters"])
        result[metric] = {"sizes": rows, "exponent_of_the_last_two": round(exponent, 2)}
    return result


def report(result: dict[str, Any]) -> list[str]:
    """Print the tables and return the bars that were missed."""
    missed = []
    timed = result["timing"]
    print(f"{timed['parameters']} parameters, medians of {timed['rounds']} alternating rounds, seconds")
    for name, stages in timed["median_seconds"].items():
        print(f"  {name:12}", "  ".join(f"{key} {value:.4g}" for key, value in stages.items()))
    for name, bar in BARS.items():
        total = timed["median_seconds"][name]["total"]
        print(f"  {name:12} {total:.3f} s (bar {bar} s); inner steps: {timed['cases'][name]}")
        if total > bar:
            missed.append(f"{name}: {total:.3f} s")
    for name, factor in timed["factor"].items():
        print(f"  cvxpylayers {name}: {factor:.0f}x")
    factor = timed["factor"]["with the network, against our total"]
    if factor < FACTOR:
        missed.append(f"factor {factor}")
    for name, rows in result["memory"].items():
        print(f"peak growth in MB, {name}; grows like P^{rows['exponent_of_the_last_two']}")
        for row in rows["sizes"]:
            size, growth, square = row["parameters"], row["peak_growth_mb"], row["p_by_p_mb"]
            print(f"  P = {size:9,.0f}  {growth:9.1f}  (P x P: {square:,.0f})")
        if rows["exponent_of_the_last_two"] > 1.3:
            missed.append(f"memory, {name}")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=16, help="rows of the peer's Jacobian per round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=3, metavar=("METRIC", "FIRST", "SECOND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.peak:
        metric, first, second = options.peak
        print(json.dumps(peak_growth((int(first), int(second)), metric)))
        return
    result = {"timing": timing(options.rounds, options.sample), "memory": memory()}
    missed = report(result)
    result["missed"] = missed
    if options.json:
        write_json(options.json, result, indent=1)
    print("missed:", ", ".join(missed) or "nothing")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
