"""Trains algorithms on tasks whose optimum is known, and says which of them keep the limit and come close.

    python benchmarks/known_optimum.py run [--policies cvpo,cpo] [--cases all_steps,first_six] [--jobs 2]
    python benchmarks/known_optimum.py table

``run`` trains every policy on every case, judges the last policy by 50 episodes without and 50 with the noise
of training, and writes one small file per run to ``benchmarks/results/known_optimum/``. It skips runs whose
file is there. ``table`` reads the files. Both print the table as Markdown, name what misses a bar, and exit
with 0 if nothing does. ``docs/known_optimum.md`` has the tasks' equations and the results.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsrl_ext
from fsrl_ext.env import make
from fsrl_ext.experiment import ExperimentConfig, evaluate, make_config
from fsrl_ext.experiment import run as run_experiment
from fsrl_ext.experiment.algorithms import MetaTraining, OffpolicyTraining
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.settings import list_settings

RESULTS = Path(__file__).parent / "results" / "known_optimum"

# The groups of cases, a table for each: where the cost lies and what is seen, and the units.
GROUPS = {
    "Place of the cost, and time observed": {
        "all_steps": "KnownOptimum-v0",
        "first_six": "KnownOptimumFirstSix-v0",
        "last_six": "KnownOptimumLastSix-v0",
        "clock": "KnownOptimumClock-v0",
    },
    "Units, with noise observed": {
        "noise": "KnownOptimumNoise-v0",
        "rewards_x100": "KnownOptimumLargeRewards-v0",
        "rewards_x0.01": "KnownOptimumSmallRewards-v0",
        "costs_x100": "KnownOptimumLargeCosts-v0",
        "costs_x0.01": "KnownOptimumSmallCosts-v0",
        "observations_x1000": "KnownOptimumLargeObservations-v0",
    },
}
CASES = {case: task for group in GROUPS.values() for case, task in group.items()}

EPISODES = 50
"""Episodes that judge a policy in each mode."""
MODES = ("deterministic", "stochastic")
MOST_COST = 1.1
"""Bar on the mean cost of an episode, in units of the limit."""
LEAST_RETURN = 0.8
"""Bar on the mean return of an episode, in units of the optimum."""

# Networks and data are small, as the task is. One test at the end is the least that a run can have, and ten
# episodes are played side by side.
_COMMON: dict[str, Any] = {
    **{"num_envs": 4, "hidden_sizes": (32, 32), "threads": 1},
    **{"selections": 1, "selection_episodes": 10, "final_episodes": 10},
}
_OFFPOLICY: dict[str, Any] = {"step_per_collect": 400}
# The statistics of observations are frozen early enough for the run to settle afterwards.
_ONPOLICY: dict[str, Any] = {"step_per_collect": 800, "normalise_steps": 8_000}

_trainings: list[subprocess.Popen[bytes]] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="train what has no result, then print the table")
    run.set_defaults(command=_run, write=False)
    table = commands.add_parser("table", help="print the results that there are")
    table.set_defaults(command=_table)
    one = commands.add_parser("one", help="train one policy on one case in this process, as run does")
    one.set_defaults(command=_one)
    for command in (run, table):
        command.add_argument("--policies", default="all", help="names, separated by commas (default: all)")
        command.add_argument("--cases", default="all", help=f"of {', '.join(CASES)} (default: all)")
    one.add_argument("policy")
    one.add_argument("case", choices=CASES)
    for command in (run, one):
        command.add_argument("--steps", type=int, default=60_000, help="environment steps of a run")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all runs"
        )
        command.add_argument("--again", action="store_true", help="replace results that are there")
    run.add_argument("--jobs", type=int, default=2, help="runs side by side, one process each")
    for command in (run, table, one):
        command.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
        command.add_argument("--import", dest="module", help="module that registers an algorithm")
    options = parser.parse_args()
    if options.module:
        sys.path.insert(0, os.getcwd())
        importlib.import_module(options.module)
    try:
        return options.command(options)
    except ValueError as error:
        parser.error(str(error))


def constrained_policies() -> list[str]:
    """Returns the registry's algorithms that have a limit and learn a single task."""
    return [
        name
        for name, row in algorithms().items()
        if row.constrained and not issubclass(row.training, MetaTraining)
    ]


def config_for(
    policy: str,
    case: str,
    *,
    steps: int,
    seed: int,
    settings: Sequence[str] = (),
    task: str | None = None,
) -> ExperimentConfig:
    """Returns the config of a run.

    :param task: an environment's id; that of the case if not given.
    :param settings: ``NAME=VALUE`` each; they win over everything else.
    :raises ValueError: for settings that the policy does not have, and values that it does not allow.
    """
    known = list_settings(policy)
    own = _OFFPOLICY if issubclass(algorithm(policy).training, OffpolicyTraining) else _ONPOLICY
    values = {name: value for name, value in {**_COMMON, **own}.items() if name in known}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must be NAME=VALUE, got {setting!r}")
        if name not in known:
            raise ValueError(f"--set must name a setting of {policy}, got {name!r}")
        values[name] = known[name].parse(text)
    return make_config(policy, task or CASES[case], **{"steps": steps, "seed": seed, **values})


def train(config: ExperimentConfig) -> dict[str, Any]:
    """Trains one policy and judges it after the last step.

    :return: for each mode the mean return in units of the optimum and the mean cost in units of the limit (of
        the limit's kind, discounted or not), with the seconds of training and what both are shares of.
    """
    (limit,) = config.cost_limit
    settings = config.policy_config
    discount = settings.discount_of_costs if settings.limit_unit == "discounted" else 1.0
    _, best = make(config.task).unwrapped.optimum(limit, discount)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = run_experiment(config, out=folder, run_name="run", show_progress=False)
        if done.status != "finished":
            raise KeyboardInterrupt
        seconds = time.perf_counter() - started
        judged = {
            mode: evaluate(done.folder, episodes=EPISODES, stochastic=mode == "stochastic", checkpoint="last")
            for mode in MODES
        }
    shares = {
        mode: {
            "return": float(f"{episodes.return_mean / best:.4g}"),
            "cost": float(f"{episodes.cost_mean[0] / limit:.4g}"),
        }
        for mode, episodes in judged.items()
    }
    known = {"cost_limit": limit, "optimal_return": round(best, 9)}
    return {**known, **shares, "seconds": round(seconds, 1)}


def result_file(out: Path, policy: str, case: str, seed: int) -> Path:
    """Returns the file of a run's result."""
    return out / f"{policy}-{case}-seed{seed}.json"


def _one(options: argparse.Namespace) -> int:
    config = config_for(
        options.policy, options.case, steps=options.steps, seed=options.seed, settings=options.set
    )
    result = {
        "policy": options.policy,
        "case": options.case,
        "task": config.task,
        "seed": config.seed,
        "steps": config.steps,
        "settings": options.set,
        "config_digest": config.digest(),
        **train(config),
        "version": fsrl_ext.__version__,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    file = result_file(options.out, options.policy, options.case, options.seed)
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{_line(result)}, {'misses a bar' if misses(result) else 'passes'}", flush=True)
    return 0


def _run(options: argparse.Namespace) -> int:
    pairs = [(policy, case) for policy in _policies(options) for case in _cases(options)]
    missing = []
    for policy, case in pairs:
        config = config_for(policy, case, steps=options.steps, seed=options.seed, settings=options.set)
        file = result_file(options.out, policy, case, options.seed)
        if options.again or not file.exists():
            missing.append((policy, case))
        elif json.loads(file.read_text())["config_digest"] != config.digest():
            raise ValueError(
                f"{file} is of a run with other settings; --again replaces it, --out DIR leaves it alone"
            )
    failed = _train_all(options, missing) if missing else []
    for policy, case in failed:
        print(f"{policy}, {case}: failed")
    return max(_table(options), int(bool(failed)))


def _train_all(options: argparse.Namespace, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Trains policies on cases, several side by side; returns the pairs that failed."""
    signal.signal(signal.SIGTERM, _stop)
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(lambda pair: _train_apart(options, *pair), pairs))
    return [pair for pair, code in zip(pairs, codes, strict=True) if code]


def _train_apart(options: argparse.Namespace, policy: str, case: str) -> int:
    """Trains in a process of its own; returns its exit status."""
    command = [sys.executable, __file__, "one", policy, case, "--out", str(options.out)]
    command += ["--steps", str(options.steps), "--seed", str(options.seed)]
    command += [word for setting in options.set for word in ("--set", setting)]
    command += ["--import", options.module] if options.module else []
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as training:
        _trainings.append(training)
    return training.returncode


def _stop(signal_number: int, frame: Any) -> None:
    """Stops the trainings; the next call makes them anew."""
    for training in _trainings:
        training.terminate()
    os._exit(128 + signal_number)


def _policies(options: argparse.Namespace) -> list[str]:
    known = constrained_policies()
    policies = known if options.policies == "all" else options.policies.split(",")
    for policy in policies:
        if policy not in known:
            raise ValueError(f"--policies must be of {', '.join(known)}, got {policy!r}")
    return policies


def _cases(options: argparse.Namespace) -> list[str]:
    cases = list(CASES) if options.cases == "all" else options.cases.split(",")
    for case in cases:
        if case not in CASES:
            raise ValueError(f"--cases must be of {', '.join(CASES)}, got {case!r}")
    return cases


def misses(result: dict[str, Any]) -> bool:
    """Returns whether a run misses a bar in either mode."""
    return any(result[m]["cost"] > MOST_COST or result[m]["return"] < LEAST_RETURN for m in MODES)


def _line(result: dict[str, Any]) -> str:
    """Returns a run's four shares as text."""
    shares = ", ".join(f"{m} {result[m]['return']:.2f} at {result[m]['cost']:.2f}" for m in MODES)
    return f"{result['policy']}, {result['case']}, seed {result['seed']}: {shares}"


def _cell(results: Sequence[dict[str, Any]]) -> str:
    """Returns the lowest return and the highest cost of both modes and all seeds."""
    if not results:
        return "-"
    lowest = min(result[mode]["return"] for result in results for mode in MODES)
    highest = max(result[mode]["cost"] for result in results for mode in MODES)
    text = f"{lowest:.2f} at {highest:.2f}"
    return f"**{text}**" if any(map(misses, results)) else text


def _table(options: argparse.Namespace) -> int:
    policies, cases = _policies(options), _cases(options)
    results = {
        (policy, case): [
            json.loads(file.read_text()) for file in sorted(options.out.glob(f"{policy}-{case}-seed*.json"))
        ]
        for policy in policies
        for case in cases
    }
    lines = []
    for title, group in GROUPS.items():
        if not (columns := [case for case in cases if case in group]):
            continue
        lines += [f"| {title} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        for policy in policies:
            lines.append(f"| {policy} | {' | '.join(_cell(results[policy, case]) for case in columns)} |")
        lines.append("")
    missed = [_line(result) for seeds in results.values() for result in seeds if misses(result)]
    absent = [f"{policy}, {case}: no result" for (policy, case), seeds in results.items() if not seeds]
    lines += [f"- {line}" for line in missed + absent] or ["Nothing misses a bar."]
    print("\n".join(lines))
    return int(bool(missed or absent))


if __name__ == "__main__":
    sys.exit(main())
