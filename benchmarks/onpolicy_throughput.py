"""Measures the training throughput of CPO against OmniSafe's CPO on SafetyPointGoal1.

    python benchmarks/onpolicy_throughput.py --peer PEER/bin/python    # three alternating runs of each
    python benchmarks/onpolicy_throughput.py --peer PEER/bin/python --cores 2

Each run is a process of its own with one torch thread and no selections, and the two libraries take turns.
With ``--cores 2``, two processes step our environments. Processor seconds are those of the learning process.
``benchmarks/peers/omnisafe_cpo.py`` says how to make the peer's environment. Both collect 20,000 steps per
update, with 64 x 64 networks, normalised observations, a KL bound of 0.01 and up to 15 iterations of
conjugate gradient over all states, and fit their critics in 10 passes of minibatches of 128 (OmniSafe's size;
our default is 256). All other settings are each library's defaults: ours steps ten environments, OmniSafe
one.

The script prints medians over the updates after the first and then over the runs, of

- ``all``: from one collect to the next;
- ``collect``: the rollout; OmniSafe's includes the advantages, which it computes at the end of each episode;
- ``actor``: the policy's update: gradients, conjugate gradient and line search; ours includes the densities
  of the data, which OmniSafe keeps from the rollout;
- ``critic``: the rest of the update.

Each is given in wall seconds and in processor seconds of the process; other work of the machine hardly
changes the latter. The bars are for wall seconds. ``--json`` keeps the figures, and ``--add`` adds the rounds
to those in the file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from peers.clock import Clock, Moment
from throughput import run_apart

from fsrl_ext.data import CostCollector
from fsrl_ext.experiment import make_config
from fsrl_ext.experiment.training import build
from fsrl_ext.experiment.training.checkpoint import versions
from fsrl_ext.report import text_table
from fsrl_ext.report.files import read_json, write_json
from fsrl_ext.trainer import CostOnpolicyTrainer, seed_range

PARTS = ("all", "collect", "actor", "critic")
# Bars are how many times as fast as OmniSafe our update has to be.
BARS = {"all": 12.0, "actor": 1.0}
OMNISAFE_BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", help="Python of OmniSafe's environment; without it only ours runs")
    parser.add_argument("--task", default="SafetyPointGoal1-v0")
    parser.add_argument("--updates", type=int, default=3, help="updates of each run; the first is warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps-per-update", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=OMNISAFE_BATCH, help="our critic's minibatch size")
    parser.add_argument(
        "--fisher-fraction", type=float, default=1.0, help="share of the states in our Fisher matrix"
    )
    parser.add_argument("--cores", type=int, default=1, help="cores of our training, as in fsrl-ext train")
    parser.add_argument("--add", action="store_true", help="add the rounds to those in --json")
    parser.add_argument("--own", action="store_true", help="run our training once in this process")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.updates < 2:
        parser.error("--updates must be >= 2: the first is warm-up")
    torch.set_num_threads(1)
    result = own(options) if options.own else compare(options)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, result, indent=1)


def own(options: argparse.Namespace) -> dict[str, Any]:
    """Runs a training under clocks."""
    config = make_config(
        "cpo",
        options.task,
        steps=options.updates * options.steps_per_update,
        step_per_collect=options.steps_per_update,
        hidden_sizes=(64, 64),
        batch_size=options.batch_size,
        fisher_fraction=options.fisher_fraction,
    )
    build.seed_everything(config)
    policy, _ = build.build_policy(config)
    collector = build.train_collector(policy, config, cores=options.cores)
    assert isinstance(collector, CostCollector), "collect_ahead is off"
    training = config.training
    trainer = CostOnpolicyTrainer(
        policy=policy,
        train_collector=collector,
        test_collector=None,
        max_epoch=1,
        step_per_epoch=config.steps,
        step_per_collect=training.step_per_collect,
        repeat_per_collect=training.repeat_per_collect,
        batch_size=training.batch_size,
        train_seeds=seed_range("train", config.num_envs, run_seed=config.seed),
        show_progress=False,
    )
    clock = Clock()
    for owner, method in (
        (trainer, "_collect_training_data"),
        (trainer, "policy_update_fn"),
        (policy, "learn"),
        (policy, "_fit_critic"),
    ):
        clock.watch(owner, method)
    trainer.run()
    ended = Moment.now()
    collector.close()
    starts = [*clock.starts("_collect_training_data"), ended]
    collect, update = clock.spans("_collect_training_data"), clock.spans("policy_update_fn")
    learn, critic = clock.spans("learn"), clock.spans("_fit_critic")
    actor = [whole - part for whole, part in zip(learn, critic, strict=True)]
    cycles = [
        {
            "env_steps": options.steps_per_update,
            "collect": collect[i],
            "actor": actor[i],
            "critic": update[i] - actor[i],
            "all": starts[i + 1] - starts[i],
        }
        for i in range(options.updates)
    ]
    return {"versions": versions(), "cores": os.cpu_count(), "config": config.as_dict(), "cycles": cycles}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Runs our training and the peer's in turn."""
    here = Path(__file__).parent
    common = ["--task", options.task, "--updates", str(options.updates)]
    common += ["--steps-per-update", str(options.steps_per_update)]
    commands = {"fsrl_ext": [sys.executable, str(Path(__file__)), "--own", *common]}
    commands["fsrl_ext"] += ["--batch-size", str(options.batch_size)]
    commands["fsrl_ext"] += ["--fisher-fraction", str(options.fisher_fraction)]
    commands["fsrl_ext"] += ["--cores", str(options.cores)]
    if options.peer:
        commands["OmniSafe"] = [options.peer, str(here / "peers" / "omnisafe_cpo.py"), *common]
    before = read_json(options.json)["sides"] if options.add and options.json.exists() else {}
    sides: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[dict[str, Any]]] = {
        name: before[name]["runs"] if before else [] for name in commands
    }
    for _ in range(options.rounds):
        for name, command in commands.items():
            load = os.getloadavg()[0]
            found = run_apart(command)
            runs[name].append({"load_before": load, "cycles": found.pop("cycles")})
            if before and before[name]["config"] != found["config"]:
                raise ValueError(f"{options.json} has runs of {name} with other settings")
            sides[name] = found
    for name, side in sides.items():
        side["medians"] = _medians(runs[name])
        side["runs"] = runs[name]
    ratios = _ratios(sides) if len(sides) > 1 else {}
    print(_table(sides, ratios))
    return {"task": options.task, "ratios": ratios, "bars": BARS, "sides": sides}


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns ``[wall, processor]`` seconds of each part, and steps per second of wall time."""

    def of_run(run: dict[str, Any], part: str, kind: int) -> float:
        return statistics.median(cycle[part][kind] for cycle in run["cycles"][1:])

    figures: dict[str, Any] = {
        part: [statistics.median(of_run(run, part, kind) for run in runs) for kind in range(2)]
        for part in PARTS
    }
    return figures | {"steps_per_second": runs[0]["cycles"][0]["env_steps"] / figures["all"][0]}


def _ratios(sides: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    ours, theirs = sides["fsrl_ext"]["medians"], sides["OmniSafe"]["medians"]
    return {part: [b / a for a, b in zip(ours[part], theirs[part], strict=True)] for part in PARTS}


def _table(sides: dict[str, dict[str, Any]], ratios: dict[str, list[float]]) -> str:
    header = ["seconds per update"]
    for kind in ("wall", "processor"):
        header += [*(f"{name}, {kind}" for name in sides), *(["ratio"] if ratios else [])]
    rows = []
    for part in PARTS:
        row = [part]
        for i in range(2):
            row += [f"{side['medians'][part][i]:.2f}" for side in sides.values()]
            row += [f"{ratios[part][i]:.2f}"] if ratios else []
        rows.append(row)
    lines = [text_table(header, rows)]
    lines += [f"{name}: {side['medians']['steps_per_second']:.0f} steps/s" for name, side in sides.items()]
    lines += [f"{part}: {ratios[part][0]:.2f}, bar {bar:g}" for part, bar in BARS.items() if ratios]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
