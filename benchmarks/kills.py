"""Kills runs by SIGKILL, resumes them, and compares them with runs that nobody killed, bit for bit.

    python benchmarks/kills.py --kills 60 --jobs 2 --seed 0

Every policy makes a short run on a task with a known optimum, a meta-learner on a family of such tasks. Each
kill has a run of its own, whose process ends at a random moment after the run folder has its ``config.json``,
or at a chosen one: before the first snapshot, while a snapshot, a checkpoint, the result or new columns of
``progress.csv`` are written, in a selection, or in the final evaluation. Another process resumes the run. The
runs then must have the same rows of ``progress.csv`` (but for times), the same content of ``best.pt`` and
``last.pt``, and the same ``result.json`` (but for the seconds and the note of the resumption). No unfinished
file may be left over, and the folder may not be locked.

The script prints how many of the kills left no trace, writes ``benchmarks/results/kills.json``, and exits
with 0 if all did. Run folders are below a temporary folder, which stays if one of them differs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fsrl_ext.data import CostCollector
from fsrl_ext.env import register_family
from fsrl_ext.env.known_optimum import KnownOptimumEnv
from fsrl_ext.env.meta import Uniform, list_families
from fsrl_ext.experiment import ExperimentConfig, make_config, resume, run
from fsrl_ext.experiment.algorithms import MetaTraining, OffpolicyTraining
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.experiment.training.lock import locked
from fsrl_ext.report import read_result
from fsrl_ext.report.files import write_json
from fsrl_ext.report.folder import RunFolder

RESULT = Path(__file__).parent / "results" / "kills.json"
TASK, FAMILY = "KnownOptimumNoise-v0", "KillsFamily"
START_METHOD = "forkserver"
LONGEST = 600.0
"""Seconds that a run may take."""

_SMALL: dict[str, Any] = {
    **{"num_envs": 4, "hidden_sizes": (16,), "critic_hidden_sizes": (16,), "batch_size": 32, "threads": 1},
    **{"selection_episodes": 2, "final_episodes": 4, "selections": 4, "update_per_step": 0.2},
    **{"steps": 1030, "step_per_collect": 52, "warmup_steps": 60},
}
_SMALL_META: dict[str, Any] = {
    **_SMALL,
    **{"steps": 1280, "step_per_collect": 40, "num_tasks": 2, "inner_steps": 1, "cg_iterations": 5},
}
# What is done to each kind of run beside: training environments in processes of their own, and so on.
_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "workers": {"workers": 2},
    "ahead": {"collect_ahead": True},
}

# The chosen moments: which event of a run, and how often it may have happened before, at most.
MOMENTS = {
    "before the first snapshot": ("replace resume.pt", 0),
    "while a snapshot is written": ("replace resume.pt", 8),
    "while a checkpoint is written": ("replace checkpoint", 4),
    "while progress.csv gets new columns": ("replace progress.csv", 1),
    "in a selection": ("episodes", 3),
    "in the final evaluation": ("final episodes", 0),
    "while the result is written": ("replace result.json", 0),
}


@dataclass(frozen=True)
class Kill:
    """One run that is killed.

    :param every: of the moments at which the state is complete, each one of so many gets a snapshot.
    :param moment: a key of `MOMENTS`, or ``"random"``.
    :param where: for a random moment, the share of the run's time; for a chosen one, the share of the number
        of times that the event may have happened before.
    :param after: whether the event of a chosen moment takes place before the process ends.
    """

    number: int
    policy: str
    variant: str
    every: int
    moment: str
    where: float
    after: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one process each")
    parser.add_argument("--seed", type=int, default=0, help="draws policies and moments")
    parser.add_argument("--out", type=Path, default=RESULT, help="file of the results")
    options = parser.parse_args()
    # The processes are forks of one that has made these imports.
    multiprocessing.set_forkserver_preload(
        ["fsrl_ext.experiment.training.run", "fsrl_ext.experiment.algorithms", "fsrl_ext.env.known_optimum"]
    )
    register()
    kills = draw_kills(options.kills, options.seed)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    with ThreadPoolExecutor(options.jobs) as pool:
        kinds = sorted({(kill.policy, kill.variant) for kill in kills})
        whole = dict(zip(kinds, pool.map(lambda kind: train_whole(folder, *kind), kinds), strict=True))
        outcomes = list(
            pool.map(lambda kill: try_kill(folder, kill, *whole[kill.policy, kill.variant]), kills)
        )
    equal = sum(not outcome["different"] for outcome in outcomes)
    moments = Counter(outcome["moment"] for outcome in outcomes)
    write_json(
        options.out,
        {
            "command": f"python benchmarks/kills.py --kills {options.kills} --seed {options.seed}",
            "equal": equal,
            "kills": len(kills),
            "moments": dict(moments),
            "policies": dict(Counter(outcome["policy"] for outcome in outcomes)),
            "each": outcomes,
        },
        indent=1,
    )
    print(f"{equal} of {len(kills)}")
    if equal == len(kills):
        shutil.rmtree(folder)
    else:
        print(f"the run folders are in {folder}")
    return int(equal < len(kills))


def register() -> None:
    """Registers the family that meta-learners train on, once in every process."""
    if FAMILY in list_families():
        return
    register_family(
        FAMILY,
        lambda parameters, **kwargs: KnownOptimumEnv(
            noise=True, cost_scale=parameters["cost_scale"], **kwargs
        ),
        {0: {"cost_scale": Uniform(0.9, 1.1)}, 1: {"cost_scale": Uniform(0.5, 1.5)}},
        can_terminate=False,
        max_episode_steps=20,
    )


def draw_kills(count: int, seed: int) -> list[Kill]:
    """Draws kills: all policies in turn, every second moment random, the others chosen in turn."""
    rng = random.Random(seed)
    policies, moments = itertools.cycle(sorted(algorithms())), itertools.cycle(MOMENTS)
    kills = []
    for number in range(count):
        policy = next(policies)
        off = issubclass(algorithm(policy).training, OffpolicyTraining)
        variants = ["plain", "plain", "workers", *(["ahead"] if off else [])]
        moment = "random" if number % 2 else next(moments)
        kills.append(
            Kill(
                number=number,
                policy=policy,
                variant=rng.choice(variants),
                every=1 if moment == "while a snapshot is written" else rng.choice([1, 3, 5, 10**6]),
                moment=moment,
                where=rng.random(),
                after=rng.random() < 0.5 and moment != "before the first snapshot",
            )
        )
    return kills


def config_for(policy: str, variant: str) -> ExperimentConfig:
    """Returns the config of a run of less than a second of computing."""
    meta = issubclass(algorithm(policy).training, MetaTraining)
    known = list_settings(policy)
    values = {**(_SMALL_META if meta else _SMALL), **_VARIANTS[variant]}
    if policy == "multitask_cpo":
        values["inner_steps"] = 0  # it does not adapt
    values = {name: value for name, value in values.items() if name in known}
    return make_config(policy, FAMILY if meta else TASK, **values)


def train_whole(folder: Path, policy: str, variant: str) -> tuple[Path, float]:
    """Trains a run that nobody kills; returns its folder, and the seconds from its ``config.json`` on."""
    name = f"{policy}-{variant}-whole"
    process = start(_train, config_for(policy, variant), folder, name)
    seconds = follow(process, RunFolder(folder / name), LONGEST)
    if process.exitcode != 0:
        raise SystemExit(
            f"the run of {policy} ({variant}) failed without a kill (exit code {process.exitcode}), "
            f"see {folder / name}"
        )
    return folder / name, seconds


def try_kill(folder: Path, kill: Kill, whole: Path, seconds: float) -> dict[str, Any]:
    """Kills a run, resumes it, and compares it with the whole run; returns what the result file notes."""
    name = f"{kill.policy}-{kill.variant}-kill{kill.number}"
    path = folder / name
    wait = kill.where * seconds if kill.moment == "random" else LONGEST
    while True:
        process = start(_train, config_for(kill.policy, kill.variant), folder, name, kill)
        follow(process, RunFolder(path), wait)
        if process.exitcode == -signal.SIGKILL:
            break
        if process.exitcode != 0 or kill.moment != "random":
            return {**asdict(kill), "different": [f"the run ended by itself, exit code {process.exitcode}"]}
        shutil.rmtree(path)  # the run was faster than the whole one
        wait *= 0.7
    left = RunFolder(path)
    finished = left.result.is_file() and not left.snapshot.is_file()
    if not finished:
        process = start(_resume, path)
        follow(process, RunFolder(path), LONGEST)
    different = (
        [f"the resumed run ended with exit code {process.exitcode}"]
        if not finished and process.exitcode
        else differences(whole, path)
    )
    print(f"{name:<40} {kill.moment:<36} {'; '.join(different) or 'equal'}", flush=True)
    resumed = read_result(path).get("resumed") if left.result.is_file() else None
    return {**asdict(kill), "resumed": resumed, "different": different}


def start(target: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Starts a function in a process of its own, which has the imports behind it."""
    process = multiprocessing.get_context(START_METHOD).Process(target=target, args=arguments)
    process.start()
    return process


def follow(process: multiprocessing.process.BaseProcess, folder: RunFolder, wait: float) -> float:
    """Waits for a process, and kills it ``wait`` seconds after the folder has its ``config.json``.

    :return: the seconds from then to its end.
    """
    while process.is_alive() and not folder.config.is_file():
        time.sleep(0.002)
    begun = time.monotonic()
    process.join(timeout=wait)
    if process.is_alive():
        process.kill()
        process.join()
    return time.monotonic() - begun


def _train(config: ExperimentConfig, out: Path, name: str, kill: Kill | None = None) -> None:
    register()
    calls = itertools.count()
    every = 1 if kill is None else kill.every
    snapshot.Snapshots.due = property(lambda self: next(calls) % every == 0)  # type: ignore[assignment]
    with contextlib.ExitStack() as hooks:
        if kill is not None and kill.moment != "random":
            event, most = MOMENTS[kill.moment]
            hooks.enter_context(ending_at(event, round(kill.where * most), after=kill.after))
        run(config, out=out, run_name=name, show_progress=False, command="benchmarks/kills.py")


def _resume(folder: Path) -> None:
    register()
    resume(folder, show_progress=False)


@contextlib.contextmanager
def ending_at(event: str, before: int, *, after: bool) -> Iterator[None]:
    """Lets this process end by SIGKILL at an event of the run.

    :param event: ``"replace <file>"``, where ``checkpoint`` stands for ``best.pt`` and ``last.pt``,
        ``"episodes"`` of a selection, or ``"final episodes"``.
    :param before: how often the event happens before.
    :param after: whether the event takes place before the process ends.
    """
    counter = itertools.count()
    replace, collect = os.replace, CostCollector.collect

    def happens(*, then: Callable[[], Any]) -> Any:
        last = next(counter) == before
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = then()
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    def replacing(source: Any, target: Any) -> None:
        name = Path(target).name
        name = "checkpoint" if name in ("best.pt", "last.pt") else name
        if event == f"replace {name}":
            happens(then=lambda: replace(source, target))
        else:
            replace(source, target)

    def collecting(self: CostCollector, *arguments: Any, **options: Any) -> Any:
        # The last snapshot comes between the last selection and the final evaluation.
        kind = "final episodes" if any(over) else "episodes"
        if options.get("n_episode") and event == kind:
            return happens(then=lambda: collect(self, *arguments, **options))
        return collect(self, *arguments, **options)

    over = []
    take = snapshot.Snapshots.take

    def taking(self: snapshot.Snapshots, policy: Any, trainer: Any, state: Any) -> None:
        take(self, policy, trainer, state)
        over.append(trainer.last is not None and trainer.last.env_step >= trainer.step_budget)

    os.replace, CostCollector.collect = replacing, collecting  # type: ignore[method-assign, assignment]
    snapshot.Snapshots.take = taking  # type: ignore[method-assign]
    try:
        yield
    finally:
        os.replace, CostCollector.collect = replace, collect  # type: ignore[method-assign]
        snapshot.Snapshots.take = take  # type: ignore[method-assign]


def differences(one: Path, other: Path) -> list[str]:
    """Says in what two run folders differ, times apart."""
    different = []
    if rows_of(one) != rows_of(other):
        different.append("progress.csv")
    for name in ("best", "last"):
        first, second = (read_checkpoint(getattr(RunFolder(path), name)) for path in (one, other))
        if not same(first, second):
            different.append(f"{name}.pt")
    results = [read_result(path) for path in (one, other)]
    for result in results:
        for key in ("seconds", "resumed"):
            result.pop(key, None)
    if results[0] != results[1]:
        different.append("result.json")
    # A killed process cannot remove its lock file, which holds nothing and is not locked any more.
    lock = RunFolder(other).lock.name
    unfinished = [path.name for path in other.rglob(".*") if path.name != lock]
    with locked(RunFolder(other)):
        pass
    return different + [f"{name} is left over" for name in unfinished]


def rows_of(run_folder: Path) -> list[list[str]]:
    """Returns header and rows of ``progress.csv`` as text, without the columns that hold times."""
    with RunFolder(run_folder).progress.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if "time" not in name and "speed" not in name]
    return [[row[i] for i in kept] for row in rows]


def same(one: Any, other: Any) -> bool:
    """Tells whether two contents of checkpoints are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[k], other[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


if __name__ == "__main__":
    raise SystemExit(main())
