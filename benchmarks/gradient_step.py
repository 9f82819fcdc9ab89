"""Times CVPO's gradient step on one thread: against its floor, by stage, and by its sizes.

    python benchmarks/gradient_step.py               # the step against the bare matrix products, by stage
    python benchmarks/gradient_step.py --scaling     # with batch, samples, width and ensemble
    python benchmarks/gradient_step.py --bfloat16    # the E-step's products in bfloat16: speed and weights
    python benchmarks/gradient_step.py --memory      # a replay buffer against its arrays
    python benchmarks/gradient_step.py --cuda        # on an accelerator against one thread of the processor

The floor is what the step cannot do without: the matrix products of all forward and backward passes and of
the E-step's evaluation, with the same shapes and nothing between them. There are two floors: products by
``torch.mm``, which is MKL, and products by the library that the networks use for each size
(``fsrl_ext/net/mlp.py``). The sizes are those of FSRL's CVPO on SafetyCarCircle-v0: batch 256, 16 samples,
128 x 128. Timings alternate in one process, and the script prints medians of processor time, which other
programs on the machine disturb less; with ``--cuda`` they are wall time.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data import CostVectorReplayBuffer
from fsrl_ext.functional.estep import solve_dual
from fsrl_ext.net import EnsembleCritic, GaussianActor
from fsrl_ext.net.mlp import Layer, product
from fsrl_ext.policy import CVPOPolicy
from fsrl_ext.policy.offpolicy import cvpo as stages
from fsrl_ext.policy.offpolicy.critics import CriticLosses
from fsrl_ext.policy.optimise import Adam
from fsrl_ext.report import text_table
from fsrl_ext.report.files import write_json

OBS, ACT, ENVS = 8, 2, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # After a block of this size was freed, glibc keeps freed memory, as in any training; in a fresh
    # process every step would give its activations' pages back and fetch them anew.
    block = torch.empty(8 * 2**20 - 64)
    del block
    chosen: list[Callable[[int], dict[str, Any]]] = [
        task
        for wanted, task in (
            (options.memory, memory),  # first: later ones leave freed pages, which the buffer would take
            (options.scaling, scaling),
            (options.bfloat16, bfloat16),
            (options.cuda, accelerator),
        )
        if wanted
    ]
    result: dict[str, Any] = {}
    for task in chosen or [floor_and_stages]:
        result |= task(options.rounds)
    if options.json:
        write_json(options.json, result, indent=1)


class Step:
    """A policy with a filled buffer; a call takes one gradient step."""

    def __init__(
        self,
        batch: int = 256,
        samples: int = 16,
        width: int = 128,
        ensemble: int = 1,
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        actor = GaussianActor(OBS, ACT, hidden_sizes=(width, width)).to(device)
        critic = EnsembleCritic(
            OBS, ACT, hidden_sizes=(width, width), reward_ensemble=ensemble, cost_ensemble=ensemble
        ).to(device)
        self.policy = CVPOPolicy(
            actor=actor,
            actor_optim=Adam(actor.parameters(), lr=5e-4),
            critic=critic,
            critic_optim=Adam(critic.parameters(), lr=1e-3),
            action_space=gym.spaces.Box(-1, 1, (ACT,)),
            cost_limit=10.0,
            max_episode_steps=300,
            num_samples=samples,
            **settings,
        ).to(device)
        self.batch, self.samples, self.width, self.ensemble = batch, samples, width, ensemble
        self.buffer = filled_buffer(2000)
        # The trainer does this once for all steps.
        self.policy.is_within_training_step = True
        self.policy.train()
        for _ in range(20):
            self()

    def __call__(self) -> None:
        self.policy.update(self.batch, self.buffer)


def filled_buffer(steps: int, size: int = 200_000) -> CostVectorReplayBuffer:
    """Returns a buffer of random transitions in episodes of 300 steps, with one cost in twenty steps."""
    rng = np.random.default_rng(0)
    buffer = CostVectorReplayBuffer(size, ENVS)
    for t in range(steps):
        done = np.full(ENVS, t % 300 == 299)
        obs, obs_next = rng.standard_normal((2, ENVS, OBS)).astype(np.float32)
        transition = {
            "obs": obs,
            "act": rng.uniform(-1, 1, (ENVS, ACT)).astype(np.float32),
            "rew": rng.standard_normal(ENVS),
            "terminated": np.zeros(ENVS, bool),
            "truncated": done,
            "done": done,
            "obs_next": obs_next,
            "cost": (rng.random(ENVS) < 0.05).astype(np.float32),
        }
        buffer.add(Batch(transition))
    return buffer


def floor_of(step: Step, *, fast: bool = False) -> Callable[[], None]:
    """Returns a function that computes the matrix products of a step and nothing else.

    :param fast: whether large products are oneDNN's, as in the networks; otherwise all are ``torch.mm``.
    """
    width, batch = step.width, step.batch
    critic, actor = [OBS + ACT, width, width, 1], [OBS, width, width, 2 * ACT]
    per_net = [
        *products(batch * step.samples, [ACT, width, width, 1]),  # E-step: the observation's part is small
        *products(batch, [OBS, width]),
        *products(batch, critic),  # targets
        *products(batch, critic, backward=True),
    ]
    pairs = [
        *(pair for _ in range(2 * step.ensemble) for pair in per_net),
        *products(2 * batch, actor),  # the old policy
        *products(batch, actor, backward=True),
    ]

    zeros = {right.shape[1]: torch.zeros(right.shape[1]) for _, right in pairs}
    layers = [(left, Layer(right, right.t(), zeros[right.shape[1]])) for left, right in pairs]

    def run() -> None:
        for left, right in pairs:
            torch.mm(left, right)

    def run_fast() -> None:
        for left, layer in layers:
            product(left, layer)

    return run_fast if fast else run


def products(
    rows: int, sizes: list[int], *, backward: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        x, weight, grad = torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.randn(rows, outputs)
        yield x, weight
        if backward:
            yield x.T, grad
            if index:  # nobody asks for the gradient at the input
                yield grad, weight.T


def alternate(
    calls: dict[str, Callable[[], None]],
    rounds: int,
    repeats: int = 10,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Calls in turn; returns the median milliseconds of each call, by a clock of seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            for _ in range(repeats):
                call()
            times[name].append((clock() - start) / repeats * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def floor_and_stages(rounds: int) -> dict[str, Any]:
    step = Step()
    with torch.no_grad():
        calls = {
            "gradient step": step,
            "floor, torch.mm": floor_of(step),
            "floor, fast": floor_of(step, fast=True),
        }
    medians = alternate(calls, rounds)
    step_ms, *floors = medians.values()
    ratios = {name: step_ms / floor for name, floor in zip(list(medians)[1:], floors, strict=True)}
    print(f"gradient step {step_ms:.2f} ms")
    for name, ratio in ratios.items():
        print(f"{name} {medians[name]:.2f} ms, ratio {ratio:.2f}")
    print()
    shares = stage_times(step, rounds * 10)
    total = shares.pop("step")
    rows = [[name, f"{1e3 * value:.2f}", f"{value / total:.0%}"] for name, value in shares.items()]
    print(text_table(["stage", "ms", "share"], rows))
    return {"step": {"ms": medians, "ratios": ratios, "stages_ms": {k: 1e3 * v for k, v in shares.items()}}}


def stage_times(step: Step, count: int) -> dict[str, float]:
    """Returns mean seconds of processor time of each stage, from clocks around the policy's own calls."""
    seconds: defaultdict[str, float] = defaultdict(float)
    policy = step.policy

    def clocked(owner: Any, attribute: str, stage: str) -> Callable[[], None]:
        function = getattr(owner, attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            answer = function(*args, **kwargs)
            seconds[stage] += time.process_time() - start
            return answer

        setattr(owner, attribute, call)
        return lambda: setattr(owner, attribute, function)

    many_actions = EnsembleCritic.forward

    def target(obs: torch.Tensor, act: torch.Tensor, **kwargs: Any) -> Any:
        start = time.process_time()
        answer = many_actions(policy.target_critic, obs, act, **kwargs)
        stage = "E-step: evaluation" if act.dim() == 3 else "targets: critics"
        seconds[stage] += time.process_time() - start
        return answer

    undo = [
        clocked(step.buffer, "sample", "sample and gather"),
        clocked(step.buffer, "nstep_window", "targets: window"),
        clocked(stages, "nstep_returns", "targets: returns"),
        clocked(policy.old_actor, "forward", "old policy"),
        clocked(policy.critic, "forward", "critics: forward"),
        clocked(CriticLosses, "backward", "critics: backward"),
        clocked(policy.critic_optim, "step", "critics: Adam"),
        clocked(policy._estep, "solve", "E-step: dual"),
        clocked(stages, "fit_gaussian", "M-step, forward apart"),
        clocked(policy.actor, "forward", "M-step: forward"),
        clocked(stages.PolyakAverage, "update", "Polyak"),
        clocked(stages.MetricStats, "of", "statistics"),
    ]
    policy.target_critic.forward = target
    start = time.process_time()
    for _ in range(count):
        step()
    total = time.process_time() - start
    del policy.target_critic.forward
    for each in undo:
        each()
    seconds["everything else"] = total - sum(seconds.values())
    return {name: value / count for name, value in seconds.items()} | {"step": total / count}


def scaling(rounds: int) -> dict[str, Any]:
    """Times gradient steps of other sizes, and prints them relative to the default sizes."""
    variants: list[dict[str, Any]] = [
        {},
        *({"batch": x} for x in (64, 128, 512, 1024)),
        *({"samples": x} for x in (4, 8, 32, 64)),
        {"samples": 8, "action_sampling": "stratified"},
        *({"width": x} for x in (64, 256)),
        {"ensemble": 2},
    ]
    medians = alternate({size(x): Step(**x) for x in variants}, max(rounds // 3, 3), repeats=3)
    base = medians[size({})]
    print(
        text_table(["size", "ms", "ratio"], [[n, f"{m:.2f}", f"{m / base:.2f}"] for n, m in medians.items()])
    )
    return {"scaling_ms": medians}


def size(variant: dict[str, Any]) -> str:
    """Describes the sizes that differ from the default sizes, or the default sizes themselves."""
    return " ".join(f"{k} {v}" for k, v in variant.items()) or "batch 256 samples 16 width 128"


def bfloat16(rounds: int) -> dict[str, Any]:
    """Times the step in bfloat16, and measures how far the E-step's weights move."""
    exact, low = Step(), Step(estep_precision="bfloat16")
    medians = alternate({"float32": exact, "bfloat16": low}, rounds)
    policy = exact.policy
    obs = torch.as_tensor(exact.buffer.sample(256)[0].obs)
    weights = []
    with torch.no_grad(), policy_within_training_step(policy):
        mean, scale = policy.actor(obs)[0]
        act = (mean[:, None] + scale[:, None] * torch.randn(256, 16, ACT)).clamp(-1, 1)
        for kwargs in ({}, {"hidden_dtype": torch.bfloat16}):
            q = policy.target_critic(obs, act, **kwargs)
            threshold = q.cost.double().mean().reshape(1) * 0.98
            solution = solve_dual(q.reward[0], q.cost[0], kl_bound=0.05, cost_threshold=threshold)
            weights.append(solution.weights)
    moved = float((weights[0] - weights[1]).abs().sum(1).mean() / 2)
    spread = float((weights[0] - 1 / 16).abs().sum(1).mean() / 2)
    print(text_table(["E-step in", "ms"], [[n, f"{m:.2f}"] for n, m in medians.items()]))
    print(f"ratio {medians['float32'] / medians['bfloat16']:.2f}")
    print(
        f"weights: mean total variation {moved:.2e} between the two, {spread:.2e} between float32 and uniform"
    )
    return {"bfloat16": {"ms": medians, "total_variation": moved, "from_uniform": spread}}


def accelerator(rounds: int) -> dict[str, Any]:
    """Times a gradient step on processor and accelerator, the wait for the last kernel included."""
    variants: list[dict[str, Any]] = [
        {},
        {"batch": 1024},
        {"width": 256, "ensemble": 2},
        {"batch": 1024, "samples": 64, "width": 256, "ensemble": 2},
    ]
    found, rows = {}, []
    for variant in variants:
        there = Step(**variant, device="cuda")

        def step(there: Step = there) -> None:
            there()
            torch.cuda.synchronize()

        medians = alternate({"cpu": Step(**variant), "cuda": step}, max(rounds // 5, 3), 5, time.perf_counter)
        found[size(variant)] = medians
        ratio = medians["cpu"] / medians["cuda"]
        rows.append([size(variant), f"{medians['cpu']:.2f}", f"{medians['cuda']:.2f}", f"{ratio:.2f}"])
    print(torch.cuda.get_device_name())
    print(text_table(["size", "one thread, ms", "accelerator, ms", "ratio"], rows))
    return {"accelerator": {"device": torch.cuda.get_device_name(), "ms": found}}


def memory(rounds: int) -> dict[str, Any]:
    """Measures the memory of a buffer of a million transitions, relative to its arrays."""
    filled_buffer(10, size=100)  # what is compiled and imported on the way is not the buffer's
    before = resident()
    buffer = filled_buffer(10, size=1_000_000)
    for value in buffer._meta.values():
        value.fill(0)  # touch every page
    grown = resident() - before
    arrays = sum(x.nbytes for x in buffer._meta.values())
    ratio = grown / arrays
    print(f"1M transitions: {grown / 2**20:.1f} MiB, its arrays {arrays / 2**20:.1f} MiB, ratio {ratio:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak of the process {peak:.0f} MiB")
    return {"memory": {"bytes": grown, "arrays": arrays, "ratio": ratio, "peak_mib": peak}}


def resident() -> int:
    """Returns the bytes of this process that are in memory."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
