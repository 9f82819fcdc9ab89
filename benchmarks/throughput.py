"""Measures training throughput against FSRL's agents, and collection against Tianshou's collector.

    python benchmarks/throughput.py compare --peer PEER/bin/python    # five alternating runs, CarCircle
    python benchmarks/throughput.py compare --policy sac_lag --cycles 12 --peer PEER/bin/python
    python benchmarks/throughput.py collect                           # BallCircle, 10 environments
    python benchmarks/throughput.py environments                      # steps/s with 1 to 20 environments

``compare`` runs whole trainings without evaluation, each in a process of its own with one torch thread, at
FSRL's settings (batch 256, 128 x 128, 0.2 updates per step; CVPO 10 environments and 3,000 steps per collect,
SAC-Lag and DDPG-Lag 2 environments and 600 steps). FSRL's CVPO samples 16 independent actions per state in
its E-step. Ours has 16, too, and stands there a second time with 8 stratified actions, which make less noise
than those 16 (``benchmarks/estep_samples.py``). The variants take turns: our
training in one process, our training that collects ahead in a second process, and FSRL's training
(``benchmarks/peers/fsrl_offpolicy.py`` says how to make its environment). ``--bfloat16`` adds CVPO with
bfloat16. Figures are medians over the cycles after the first and then over the runs. ``--json`` keeps them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make
from fsrl_ext.experiment import make_config
from fsrl_ext.experiment.training import build
from fsrl_ext.report import text_table
from fsrl_ext.report.files import read_json, write_json
from fsrl_ext.trainer import CostOffpolicyTrainer, seed_range

_COMMON: dict[str, Any] = {"batch_size": 256, "hidden_sizes": (128, 128), "update_per_step": 0.2}
_BASELINE = {**_COMMON, "step_per_collect": 600, "num_envs": 2}
FSRL_SETTINGS: dict[str, dict[str, Any]] = {
    "cvpo": {**_COMMON, "num_samples": 16, "step_per_collect": 3000, "num_envs": 10},
    "sac_lag": {**_BASELINE, "reward_ensemble": 2, "cost_ensemble": 2},
    "ddpg_lag": {**_BASELINE, "reward_ensemble": 1, "cost_ensemble": 1},
}


def variants(policy: str, *, bfloat16: bool) -> dict[str, dict[str, Any]]:
    """Returns settings by row: one process and two cores in float32, whatever the defaults are."""
    estep: dict[str, Any] = {"estep_precision": "float32"} if policy == "cvpo" else {}
    rows = {
        "one process": {"collect_ahead": False, **estep},
        "two cores": {"collect_ahead": True, **estep},
    }
    if policy == "cvpo":
        eight = {"num_samples": 8, "action_sampling": "stratified"}
        rows |= {f"{name}, 8 stratified": {**row, **eight} for name, row in rows.items()}
        if bfloat16:
            rows["two cores, bfloat16"] = {"collect_ahead": True, "estep_precision": "bfloat16"}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    compare_parser = commands.add_parser("compare")
    compare_parser.add_argument("--peer", help="Python of the peer's environment; without it only ours runs")
    compare_parser.add_argument("--policy", choices=FSRL_SETTINGS, default="cvpo")
    compare_parser.add_argument("--task", default="SafetyCarCircle-v0")
    compare_parser.add_argument("--rounds", type=int, default=5)
    compare_parser.add_argument("--cycles", type=int, default=4)
    compare_parser.add_argument("--bfloat16", action="store_true")
    compare_parser.set_defaults(command=compare)
    collect_parser = commands.add_parser("collect")
    collect_parser.add_argument("--task", default="SafetyBallCircle-v0")
    collect_parser.add_argument("--rounds", type=int, default=7)
    collect_parser.set_defaults(command=collect)
    environments_parser = commands.add_parser("environments")
    environments_parser.add_argument("--task", default="SafetyCarCircle-v0")
    environments_parser.set_defaults(command=environments)
    own_parser = commands.add_parser("own", help="run our training once; the other commands use this")
    own_parser.add_argument("--policy", choices=FSRL_SETTINGS, required=True)
    own_parser.add_argument("--task", required=True)
    own_parser.add_argument("--settings", type=json.loads, default={})
    own_parser.add_argument("--cycles", type=int, required=True)
    own_parser.set_defaults(command=own)
    for each in (compare_parser, collect_parser, environments_parser, own_parser):
        each.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = options.command(options)
    if options.json:
        write_json(options.json, result, indent=1)


def own(options: argparse.Namespace) -> dict[str, Any]:
    """Trains some cycles and times each cycle."""
    settings = {**FSRL_SETTINGS[options.policy], **options.settings}
    config = make_config(options.policy, options.task, **settings)
    build.seed_everything(config)
    policy, _ = build.build_policy(config)
    training = config.training
    trainer = ClockedTrainer(
        policy=policy,
        train_collector=build.train_collector(policy, config, cores=2),
        test_collector=None,
        max_epoch=options.cycles,
        step_per_epoch=training.step_per_collect,
        step_per_collect=training.step_per_collect,
        update_per_step=training.update_per_step,
        batch_size=training.batch_size,
        train_seeds=seed_range("train", config.num_envs, run_seed=config.seed),
        show_progress=False,
    )
    trainer.run()
    trainer.train_collector.close()
    return {"cycles": trainer.cycles}


class ClockedTrainer(CostOffpolicyTrainer):
    """Keeps the seconds of every cycle and of its updates."""

    def __init__(self, **kwargs: Any) -> None:
        self.cycles: list[dict[str, float]] = []
        super().__init__(**kwargs)

    def _collect_training_data(self) -> Any:
        self.began = time.perf_counter()
        return super()._collect_training_data()

    def policy_update_fn(self, collect_stats: Any) -> Any:
        collected, before = time.perf_counter(), self._gradient_step
        stats = super().policy_update_fn(collect_stats)
        ended = time.perf_counter()
        self.cycles.append(
            {
                "env_steps": collect_stats.n_collected_steps,
                "gradient_steps": self._gradient_step - before,
                "collect_seconds": collected - self.began,
                "update_seconds": ended - collected,
                "seconds": ended - self.began,
            }
        )
        return stats


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all variants and the peer in turn."""
    settings = variants(options.policy, bfloat16=options.bfloat16)
    names = [*settings, *(["FSRL"] if options.peer else [])]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            runs[name].append(_summary(_run(options, settings.get(name))))
    figures = {
        name: {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]}
        for name in names
    }
    base = figures["FSRL" if options.peer else "one process"]
    rows = [
        [
            name,
            f"{x['steps_per_second']:.0f}",
            f"{x['steps_per_second'] / base['steps_per_second']:.2f}",
            f"{x['ms_per_gradient_step']:.2f}",
            f"{base['ms_per_gradient_step'] / x['ms_per_gradient_step']:.2f}",
        ]
        for name, x in figures.items()
    ]
    print(text_table(["", "steps/s", "ratio", "ms per gradient step", "ratio"], rows))
    return {"policy": options.policy, "task": options.task, "medians": figures, "runs": runs}


def _run(options: argparse.Namespace, settings: dict[str, Any] | None) -> list[dict[str, float]]:
    """Runs a training with settings of ours, or FSRL's for ``None``."""
    here = Path(__file__).parent
    if settings is None:
        steps = str(options.cycles * FSRL_SETTINGS[options.policy]["step_per_collect"])
        command = [options.peer, str(here / "peers" / "fsrl_offpolicy.py"), "--steps", steps, "--no-eval"]
    else:
        command = [sys.executable, str(here / "throughput.py"), "own", "--settings", json.dumps(settings)]
        command += ["--cycles", str(options.cycles)]
    return run_apart([*command, "--policy", options.policy, "--task", options.task])["cycles"]


def run_apart(command: list[str]) -> dict[str, Any]:
    """Runs a command in a process of its own with one thread; returns what it writes to its ``--json``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, "--json", str(out)],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        return read_json(out)


def _summary(cycles: list[dict[str, float]]) -> dict[str, float]:
    later = cycles[1:]
    return {
        "steps_per_second": statistics.median(c["env_steps"] / c["seconds"] for c in later),
        "ms_per_gradient_step": 1e3
        * statistics.median(c["update_seconds"] / c["gradient_steps"] for c in later),
    }


def collect(options: argparse.Namespace) -> dict[str, Any]:
    """Times a vector step of three collectors with one policy, without the environments' own time."""
    config = make_config("cvpo", options.task)
    build.seed_everything(config)
    policy, _ = build.build_policy(config)
    count, steps = 10, 200
    envs = DummyVectorEnv([ClockedEnv.factory(options.task) for _ in range(count)])
    collectors: dict[str, Collector] = {
        "Tianshou's": Collector(policy, envs, VectorReplayBuffer(100_000, count)),
        "plain": CostCollector(policy, envs, CostVectorReplayBuffer(100_000, count), fast=False),
        "fast": CostCollector(policy, envs, CostVectorReplayBuffer(100_000, count)),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in collectors}
    with policy_within_training_step(policy), torch.no_grad():
        for turn in range(options.rounds + 1):
            for name, collector in collectors.items():
                collector.reset_env()
                ClockedEnv.seconds, began = 0.0, time.perf_counter()
                collector.collect(n_step=count * steps)
                total = time.perf_counter() - began
                if turn:  # the first fills caches and allocates
                    times[name].append((total / steps, ClockedEnv.seconds / steps))
    figures = {
        name: {
            "ms": 1e3 * statistics.median(total - inside for total, inside in values),
            "environment_ms": 1e3 * statistics.median(inside for _, inside in values),
        }
        for name, values in times.items()
    }
    base = figures["Tianshou's"]["ms"]
    rows = [[name, f"{x['ms']:.3f}", f"{base / x['ms']:.2f}"] for name, x in figures.items()]
    print(text_table(["collector", "ms per vector step, environments apart", "ratio"], rows))
    return {"task": options.task, "collectors": figures}


class ClockedEnv(gym.Wrapper):
    """An environment wrapper that adds up the time of all environments of its class."""

    seconds = 0.0

    @staticmethod
    def factory(task: str) -> Any:
        return lambda: ClockedEnv(make(task))

    def reset(self, **kwargs: Any) -> Any:
        began = time.perf_counter()
        answer = self.env.reset(**kwargs)
        ClockedEnv.seconds += time.perf_counter() - began
        return answer

    def step(self, action: Any) -> Any:
        began = time.perf_counter()
        answer = self.env.step(action)
        ClockedEnv.seconds += time.perf_counter() - began
        return answer


def environments(options: argparse.Namespace) -> dict[str, Any]:
    """Measures training steps per second by the number of environments."""
    figures = {}
    for count in (1, 2, 5, 10, 20):
        variant = {"num_envs": count, "step_per_collect": 1000}
        arguments = argparse.Namespace(cycles=4, policy="cvpo", task=options.task, peer=None)
        figures[count] = _summary(_run(arguments, variant))["steps_per_second"]
    print(text_table(["environments", "steps/s"], [[str(n), f"{x:.0f}"] for n, x in figures.items()]))
    return {"task": options.task, "steps_per_second": figures}


if __name__ == "__main__":
    main()
