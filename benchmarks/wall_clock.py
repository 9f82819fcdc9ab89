"""Measures the seconds until a policy is good: our CVPO and FSRL's, side by side on two cores.

    python benchmarks/wall_clock.py run SafetyCarCircle-v0 --peer PEER/bin/python   # three seeds, both sides
    python benchmarks/wall_clock.py run SafetyBallCircle-v0 --peer PEER/bin/python --until bar
    python benchmarks/wall_clock.py run SafetyCarCircle-v0 --ours "num_samples=8" --label eight
    python benchmarks/wall_clock.py table
    python benchmarks/wall_clock.py plot SafetyCarCircle-v0 docs/images/wall_clock_car_circle.png

Both sides train CVPO with a cost limit of 10 and play ten deterministic episodes every 6,000 environment
steps, on the same seeds. Ours is ``fsrl_ext.experiment.run`` with the defaults of the task; ``--ours``
changes settings, and ``--label`` names the files of such runs. FSRL's side is ``peers/fsrl_wall_clock.py``
with FSRL's defaults; its worker type and number of threads are the fastest of four pairs, which ``run``
measures first.

Time is wall time since the process was started, imports and test episodes included. This script takes it for
both sides when the training tells the result of a test, which ours may do later than the test ended. Each
training runs alone, the sides take turns, and every training leaves a file in
``benchmarks/results/wall_clock``; ``run`` makes what is missing there. A training ends when it has reached
all targets (``--until levels``), the bar alone (``--until bar``), or the step budget.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report import text_table
from fsrl_ext.report.files import read_json, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "wall_clock"
WORKERS = RESULTS / "fsrl_workers.json"
CURVE = ("seconds", "env_step", "episodes", "return_mean", "cost_mean", "cost_stderr")
EPISODES = 10
"""Episodes of a test; one that ended early, because its policy was clearly not the best, meets no target."""
MARK = "evaluation "
"""Beginning of the lines that a training prints about its tests."""
COST_LIMIT = 10.0
CORES = 2
LEVELS = (0.6, 0.8, 0.9)
"""Shares of the best published return."""
MOST = 0.40
"""The largest ratio of our time to FSRL's that the bar allows."""


@dataclass(frozen=True)
class Task:
    """What counts as good on a task."""

    published: float
    """Best return of the curves that FSRL published for a limit of 10, read off their pictures."""
    bar: float
    """Return of the bar, with a mean cost of at most the limit."""


TASKS = {
    "SafetyCarCircle-v0": Task(published=435, bar=350),  # CVPO and TRPO-Lag, 1.5M steps
    "SafetyBallCircle-v0": Task(published=780, bar=600),  # DDPG-Lag, 800k steps
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="train what is missing")
    run.add_argument("task", choices=TASKS)
    run.add_argument("--peer", help="Python of FSRL's environment; without it only ours runs")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--steps", type=int, default=600_000, help="step budget of a training")
    run.add_argument("--every", type=int, default=6000, help="environment steps between two tests")
    run.add_argument("--until", choices=("bar", "levels", "budget"), default="levels")
    run.add_argument("--ours", default="", help='settings of ours, as in "num_samples=8 batch_size=256"')
    run.add_argument("--label", default="", help="name of our runs with other settings")
    run.set_defaults(command=_run)
    own = commands.add_parser("own", help="train ours once and print the tests; run uses this")
    for name, kind in (("task", str), ("seed", int), ("steps", int), ("every", int), ("ours", str)):
        own.add_argument(f"--{name}", type=kind, required=True)
    own.set_defaults(command=_own)
    table = commands.add_parser("table", help="print the seconds to each target")
    table.set_defaults(command=_table)
    plot = commands.add_parser("plot", help="draw return and cost over seconds")
    plot.add_argument("task", choices=TASKS)
    plot.add_argument("path", type=Path)
    plot.set_defaults(command=_plot)
    for each in (run, table, plot):
        each.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    return options.command(options)


def _run(options: argparse.Namespace) -> int:
    if options.ours and not options.label:
        sys.exit("label must be given with --ours, so that other settings have files of their own")
    ours = "fsrl_ext" + (f"-{options.label}" if options.label else "")
    for seed in options.seeds:
        for side in [ours, *(["FSRL"] if options.peer else [])]:
            path = options.results / f"{options.task}-{side}-seed{seed}.json"
            if not (path.exists() and _is_done(read_json(path), options)):
                _train(options, side, seed, path)
    return 0


def _is_done(record: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether a training needs no more steps."""
    if record["curve"]["env_step"][-1] >= options.steps - options.steps % options.every:
        return True
    times = _seconds_to_targets(record)
    wanted = {"bar": ["bar"], "levels": list(times), "budget": [""]}[options.until]
    return all(times.get(name) is not None for name in wanted)


def _train(options: argparse.Namespace, side: str, seed: int, path: Path) -> None:
    """Trains once and writes the file."""
    shared = ["--task", options.task, "--seed", str(seed), "--every", str(options.every)]
    if side == "FSRL":
        worker, threads = _fastest_workers(options)
        command = _peer_command(options, worker, threads, shared)
    else:
        steps = options.steps - options.steps % options.every
        command = [sys.executable, str(HERE / "wall_clock.py"), "own", *shared]
        command += ["--steps", str(steps), "--ours", options.ours]
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load of this machine is {load:.1f} before {path.stem}", file=sys.stderr)
    record: dict[str, Any] = {
        "command": shlex.join(_without_paths(command)),
        "task": options.task,
        "side": side,
        "seed": seed,
        "cost_limit": COST_LIMIT,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load, 2),
        "curve": {name: [] for name in CURVE},
    }
    with _tests(command) as tests:
        for seconds, test in tests:
            _append(record["curve"], seconds, test)
            if _is_done(record, options):
                break
        else:
            raise RuntimeError(f"{path.stem} ended at step {record['curve']['env_step'][-1:]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    print(f"{path.stem}: {record['curve']['seconds'][-1]:.0f} s", flush=True)


def _peer_command(options: argparse.Namespace, worker: str, threads: int, shared: list[str]) -> list[str]:
    command = [os.path.abspath(options.peer), str(HERE / "peers" / "fsrl_wall_clock.py"), *shared]
    return [*command, "--worker", worker, "--threads", str(threads), "--cost-limit", f"{COST_LIMIT:g}"]


def _without_paths(command: list[str]) -> list[str]:
    return ["python", str(Path(command[1]).relative_to(HERE.parent)), *command[2:]]


def _append(curve: dict[str, list[float]], seconds: float, test: dict[str, Any]) -> None:
    returns, costs = np.array(test["returns"]), np.array(test["costs"])
    curve["seconds"].append(round(seconds, 2))
    curve["env_step"].append(test["env_step"])
    curve["episodes"].append(len(returns))
    curve["return_mean"].append(round(float(returns.mean()), 3))
    curve["cost_mean"].append(round(float(costs.mean()), 3))
    curve["cost_stderr"].append(round(float(costs.std(ddof=1)) / len(costs) ** 0.5, 3))


@contextlib.contextmanager
def _tests(command: list[str]) -> Iterator[Iterator[tuple[float, dict[str, Any]]]]:
    """Starts a training and gives its tests with the seconds since the start; ends it afterwards."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.getenv("PYTHONPATH")])])
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as folder:  # for the run folder of ours
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder, start_new_session=True
        )
        assert process.stdout is not None
        lines = (line for line in process.stdout if line.startswith(MARK))
        try:
            yield ((time.perf_counter() - began, json.loads(line.removeprefix(MARK))) for line in lines)
        finally:
            # The whole group, because worker processes would outlive a training that is ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


def _fastest_workers(options: argparse.Namespace) -> tuple[str, int]:
    """FSRL's fastest worker type and number of threads here; measured once."""
    path = options.results / WORKERS.name
    if not path.exists():
        pairs = [(worker, threads) for worker in ("shmem", "dummy") for threads in (1, CORES)]
        seconds: dict[str, float] = {}
        for worker, threads in pairs:
            shared = ["--task", options.task, "--every", str(options.every)]
            with _tests(_peer_command(options, worker, threads, shared)) as tests:
                times = [next(tests)[0] for _ in range(2)]
            seconds[f"{worker} {threads}"] = round(times[1] - times[0], 2)
        note = f"seconds of {options.every} steps of training and one test, by worker type and threads"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"task": options.task, "note": note, "seconds": seconds}, indent=1)
    measured = read_json(path)["seconds"]
    worker, threads = min(measured, key=lambda name: measured[name]).split()
    return worker, int(threads)


def _own(options: argparse.Namespace) -> int:
    """Trains ours as a user would, and prints every test."""
    from fsrl_ext.experiment import RunCallback, make_config, run

    class Printed(RunCallback):
        def on_selection(self, run: Any) -> None:
            test = run.evaluation
            point = {"returns": test.returns.tolist(), "costs": test.costs[:, 0].tolist()}
            print(MARK + json.dumps({"env_step": test.env_step, **point}), flush=True)

    config = make_config(
        "cvpo",
        options.task,
        cost_limit=COST_LIMIT,
        seed=options.seed,
        steps=options.steps,
        selections=options.steps // options.every,
        **dict(_setting(text) for text in options.ours.split()),
    )
    cores = {"cores": CORES} if "cores" in inspect.signature(run).parameters else {}
    run(config, show_progress=False, callbacks=[Printed()], **cores)
    return 0


def _setting(text: str) -> tuple[str, Any]:
    """A name and a value; what is no JSON is text."""
    name, _, value = text.partition("=")
    with contextlib.suppress(json.JSONDecodeError):
        value = json.loads(value)
        value = tuple(value) if isinstance(value, list) else value
    return name, value


def _seconds_to_targets(record: dict[str, Any]) -> dict[str, float | None]:
    """The seconds to the first test that meets each target; None for a target that no test met.

    A level is met by a feasible policy: mean cost plus one standard error at most the limit, as in
    ``docs/evaluation.md``. The bar asks for the mean cost alone.
    """
    task, curve = TASKS[record["task"]], record["curve"]
    returns, costs, errors = (np.array(curve[k]) for k in ("return_mean", "cost_mean", "cost_stderr"))
    full = np.array(curve["episodes"]) == EPISODES
    feasible = full & (costs + errors <= record["cost_limit"])
    met = {f"{level:.0%}": feasible & (returns >= level * task.published) for level in LEVELS}
    met["bar"] = full & (returns >= task.bar) & (costs <= record["cost_limit"])
    return {
        name: curve["seconds"][int(tests.argmax())] if tests.any() else None for name, tests in met.items()
    }


def load(folder: Path, task: str) -> dict[str, list[dict[str, Any]]]:
    """The records of a task by side, FSRL's last."""
    records: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob(f"{task}-*-seed*.json")):
        record = read_json(path)
        records.setdefault(record["side"], []).append(record)
    return dict(sorted(records.items(), key=lambda item: item[0] == "FSRL"))


def _table(options: argparse.Namespace) -> int:
    rows = []
    for name, task in TASKS.items():
        records = load(options.results, name)
        if not records:
            continue
        returns = {f"{level:.0%}": level * task.published for level in LEVELS} | {"bar": task.bar}
        for target in returns:
            medians: dict[str, float] = {}
            for side, runs in records.items():
                times = [_seconds_to_targets(run)[target] for run in runs]
                medians[side] = statistics.median(np.inf if t is None else t for t in times)
                shown = ", ".join("-" if t is None else f"{t:.0f}" for t in times)
                rows.append([name, target, f"{returns[target]:.0f}", side, shown, _number(medians[side])])
            for row in rows[-len(records) :]:
                row.append(_ratio(medians[row[3]], medians.get("FSRL", np.inf)))
    print(text_table(["task", "target", "return", "side", "seconds by seed", "median", "of FSRL's"], rows))
    print(
        "Levels are shares of the best published return by a feasible policy. The bar is a return with a\n"
        f"mean cost of at most {COST_LIMIT:g}; it allows {MOST:.2f} of FSRL's seconds. Tests have ten\n"
        "deterministic episodes. A dash is a target that a training did not reach; for a median it is the\n"
        "longest time."
    )
    return 0


def _number(seconds: float) -> str:
    return f"{seconds:.0f}" if np.isfinite(seconds) else "-"


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if np.isfinite([ours, theirs]).all() else "-"


def _plot(options: argparse.Namespace) -> int:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True)
    for i, (side, runs) in enumerate(load(options.results, options.task).items()):
        for axis, name in zip(axes, ("return_mean", "cost_mean"), strict=True):
            curves = [(np.array(run["curve"]["seconds"]), np.array(run["curve"][name])) for run in runs]
            for seconds, values in curves:
                axis.plot(seconds / 60, values, color=f"C{i}", linewidth=0.6, alpha=0.6)
            # The mean is over all seeds, so it lasts from the last first test to the earliest end.
            begin, end = max(s[0] for s, _ in curves), min(s[-1] for s, _ in curves)
            grid = np.linspace(begin, end, 200)
            mean = np.mean([np.interp(grid, *curve) for curve in curves], axis=0)
            axis.plot(grid / 60, mean, color=f"C{i}", linewidth=2.5, label=f"{side}, {len(runs)} seeds")
    task = TASKS[options.task]
    for level in LEVELS:
        axes[0].axhline(level * task.published, color="grey", linestyle=":", linewidth=1)
        axes[0].text(
            0.005,
            level * task.published,
            f"{level:.0%}",
            fontsize=7,
            va="bottom",
            transform=axes[0].get_yaxis_transform(),
        )
    axes[1].axhline(COST_LIMIT, color="black", linestyle="--", linewidth=1.2, label=f"limit {COST_LIMIT:g}")
    axes[1].set_yscale("symlog", linthresh=2 * COST_LIMIT)
    axes[1].set_ylim(0, None)
    axes[0].set_xlim(0, None)
    axes[0].set(ylabel="return of ten test episodes", title=f"CVPO on {options.task}, two cores")
    axes[1].set(ylabel="cost of ten test episodes", xlabel="minutes since the start, tests included")
    axes[1].legend(fontsize=8)
    options.path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.path, dpi=120)
    return 0


if __name__ == "__main__":
    sys.exit(main())
