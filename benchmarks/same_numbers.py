"""Whether two checkouts of this repository compute the same numbers, bit for bit.

    git worktree add ../before COMMIT
    python benchmarks/same_numbers.py run ../before /tmp/before
    python benchmarks/same_numbers.py run . /tmp/after
    python benchmarks/same_numbers.py compare /tmp/before /tmp/after

``run`` calls the checkout's own command line: a short run of every policy on a task of each suite, runs with
settings that take other paths through the code, runs that are interrupted and resumed, and saved policies
that are evaluated and adapted. ``compare`` reads what the command line wrote: the columns of ``progress.csv``
but for times, the numbers of ``result.json``, and every tensor of ``best.pt`` and ``last.pt``. A column that
has another name in the second checkout is recognised by its content, or named by ``--renamed``. The exit code
of ``compare`` is 1 if any number differs. A column that vanished or appeared is listed and does not change
the exit code, so the list has to be read: a column that was renamed and differs is in it twice.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch

BULLET, SAFETY, FAMILY = "SafetyBallCircle-v0", "SafetyPointGoal1-v0", "SafetyPointStcircle"

# Small, but with every kind of update, collects that end within episodes, and replay buffers that overflow.
_COMMON = "--hidden-sizes 32,32 --final-episodes 2 --quiet"
_OFF_POLICY = f"{_COMMON} --batch-size 64 --update-per-step 0.05"
_BULLET = "--steps 4000 --num-envs 4 --step-per-collect 400 --selections 5 --selection-episodes 2"
_SAFETY = "--steps 5000 --num-envs 2 --step-per-collect 600 --selections 2 --selection-episodes 1"
# The seeds are such that training episodes have costs.
OFF_POLICY = {
    BULLET: f"{_OFF_POLICY} {_BULLET} --seed 3 --warmup-steps 400 --buffer-size 2000",
    SAFETY: f"{_OFF_POLICY} {_SAFETY} --seed 6 --warmup-steps 600 --buffer-size 3000",
}
ON_POLICY = {
    BULLET: f"{_COMMON} --seed 3 --steps 6000 --num-envs 4 --step-per-collect 1200 --repeat-per-collect 4 "
    "--selections 5 --selection-episodes 2",
    SAFETY: f"{_COMMON} --seed 3 --steps 9000 --num-envs 2 --step-per-collect 3000 --repeat-per-collect 4 "
    "--selections 3 --selection-episodes 1",
}
META = "--seed 3 --steps 12000 --num-envs 2 --step-per-collect 1000 --num-tasks 2 --selections 2 "
META += "--selection-episodes 2 --final-episodes 2 --quiet"
INNER = f"{META} --inner-steps 2"

# The constrained policies have a limit that binds at some update; the others take none.
LIMIT = {BULLET: "--cost-limit 4", SAFETY: "--cost-limit 10"}
CVPO = {BULLET: "--cost-level-rate 1 --kl-bound 0.5 --cost-margin 0.2 --cost-limit 10", SAFETY: "--seed 3"}
POLICIES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("sac", "ddpg", "td3"), OFF_POLICY),
    **dict.fromkeys(("trpo", "ppo"), ON_POLICY),
    **{
        name: {task: f"{line} {LIMIT[task]}" for task, line in OFF_POLICY.items()}
        for name in ("sac_lag", "ddpg_lag", "td3_lag")
    },
    "cvpo": {task: f"{line} {LIMIT[task]} {CVPO[task]}" for task, line in OFF_POLICY.items()},
    **{
        name: {task: f"{line} {LIMIT[task]}" for task, line in ON_POLICY.items()}
        for name in ("cpo", "trpo_lag", "ppo_lag", "focops")
    },
    "meta_cpo": {FAMILY: INNER},
    "maml_lag": {FAMILY: INNER},
    "maml_trpo": {FAMILY: INNER},
    "multitask_cpo": {FAMILY: META},
}

# Further runs: a label, the policy, the task, and what is set in addition.
VARIANTS: list[tuple[str, str, str, str]] = [
    ("ahead", "cvpo", BULLET, "--collect-ahead true"),
    ("ahead", "td3_lag", SAFETY, "--collect-ahead true --warmup-steps 0"),
    ("workers", "sac_lag", BULLET, "--workers 2 --warmup-steps 0"),
    ("workers", "cpo", SAFETY, "--workers 2"),
    ("paper", "cvpo", BULLET, "--preset paper --kl-bound 0.1 --cost-margin 0 --cost-limit 4"),
    ("ascent", "td3_lag", BULLET, "--multiplier-method ascent --cost-targets own --rescale false"),
    ("cal", "sac_lag", BULLET, "--preset cal"),
    (
        "critic_level", "cvpo", BULLET,
        "--cost-level critic --time-limits end --average-tau 0.01 --cost-level-rate 0.1 --multiplier-max 0.5",
    ),
    (
        "ensemble", "cvpo", SAFETY,
        "--cost-ensemble 2 --reward-ensemble 2 --shared-body true --covariance full --cost-reduction ucb "
        "--cost-limit-start 40 --cost-limit-decay-steps 3000",
    ),
    ("ensemble", "ddpg_lag", BULLET, "--cost-ensemble 2 --reward-ensemble 2 --shared-body true"),
    ("lbfgs", "cpo", BULLET, "--critic-optimiser lbfgs --fisher-fraction 0.5 --cost-margin 0.3"),
    (
        "ascent", "ppo_lag", BULLET,
        "--multiplier-method ascent --multiplier-lr 0.1 --shared-body true --rescale false "
        "--cost-limit-start 40 --cost-limit-decay-steps 3000",
    ),
    ("each", "meta_cpo", FAMILY, "--outer-constraint each --metric euclidean --limit-gradient detach"),
    ("first_order", "meta_cpo", FAMILY, "--meta-gradient first_order --critic-optimiser adam"),
    ("reptile", "maml_lag", FAMILY, "--meta-gradient reptile"),
]  # fmt: skip

# Times differ from call to call, and the kinds of intervals from version to version.
_NOT_COMPARED = re.compile(r"interval|seconds|time|speed")
_OF_A_RESULT = (
    *("status", "env_step", "gradient_step", "train_episodes", "share_above_limit"),
    *("selections", "best", "last"),
)


@dataclass(frozen=True)
class Job:
    """A command line of the checkout.

    :param name: of its run folder, or of its file of numbers without ``.json``.
    :param policy: the policy's name.
    :param command: what follows ``fsrl-ext``; ``{out}`` stands for the folder of all results.
    :param interrupted: it is interrupted after its first snapshot, and resumed.
    :param after: another job whose run folder it reads.
    """

    name: str
    policy: str
    command: str
    interrupted: bool = False
    after: str | None = None

    @property
    def trains(self) -> bool:
        return self.command.startswith("train ")


def all_jobs(only: str) -> list[Job]:
    """Return the jobs whose names match the pattern; jobs that read a run folder come after its run."""
    jobs = [
        _training(f"{policy}-{task}", policy, task, settings)
        for policy, lines in POLICIES.items()
        for task, settings in lines.items()
    ]
    for label, policy, task, settings in VARIANTS:
        jobs.append(
            _training(f"{policy}-{task}-{label}", policy, task, f"{POLICIES[policy][task]} {settings}")
        )
    for policy in ("cvpo", "cpo"):
        settings = POLICIES[policy][BULLET]
        jobs.append(_training(f"{policy}-{BULLET}-resumed", policy, BULLET, settings, interrupted=True))
        source = f"{policy}-{BULLET}"
        settings = f"{settings} --init-from {{out}}/{source}".replace(" --warmup-steps 400", "")
        jobs.append(_training(f"{source}-continued", policy, BULLET, settings, after=source))
    adapt = "adapt {{out}}/{run} --task {task} --steps 2 --episodes 2"
    for policy, task, label, command in (
        ("cvpo", SAFETY, "evaluated", "evaluate {{out}}/{run} --episodes 2 --seed 5 --stochastic"),
        ("cpo", SAFETY, "adapted", adapt),
        ("meta_cpo", FAMILY, "adapted", adapt.replace("{task}", "{task}1-v0")),
    ):
        run = f"{policy}-{task}"
        jobs.append(Job(f"{run}-{label}", policy, command.format(run=run, task=task), after=run))
    chosen = [job for job in jobs if fnmatchcase(job.name, only)]
    if not chosen:
        raise SystemExit(f"--only must match one of {', '.join(job.name for job in jobs)}, got {only!r}")
    return chosen


def _training(name: str, policy: str, task: str, settings: str, **options: Any) -> Job:
    return Job(name, policy, f"train {policy} {task} {settings} --out {{out}} --run-name {name}", **options)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="call a checkout's command line")
    run.add_argument("checkout", type=Path)
    run.add_argument("out", type=Path, help="where the results go")
    run.add_argument("--only", default="*", metavar="PATTERN", help="names of the runs, as cvpo-*")
    run.add_argument("--jobs", type=int, default=1, help="runs side by side (default: 1)")
    run.set_defaults(command=_run)
    compare = commands.add_parser("compare", help="compare what two calls of 'run' wrote")
    compare.add_argument("first", type=Path)
    compare.add_argument("second", type=Path)
    compare.add_argument("--only", default="*", metavar="PATTERN", help="names of the runs, as cvpo-*")
    compare.add_argument(
        "--renamed", action="append", default=[], metavar="OLD=NEW", help="a column that has another name"
    )
    compare.set_defaults(command=_compare)
    options = parser.parse_args()
    return options.command(options)


def _run(options: argparse.Namespace) -> int:
    checkout, out = options.checkout.resolve(), options.out.resolve()
    jobs = all_jobs(options.only)
    out.mkdir(parents=True, exist_ok=True)
    there = [x.name for x in jobs for file in (out / x.name, out / f"{x.name}.json") if file.exists()]
    if there:
        raise SystemExit(f"{out} must not hold results of {', '.join(there)}")
    _check_policies(checkout)
    # The shell starts commands in the background with Ctrl-C switched off; the interrupted run needs it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for later in (False, True):
            part = [job for job in jobs if (job.after is not None) == later]
            outcomes = pool.map(lambda job: _do(job, checkout, out), part)
            for job, (error, seconds) in zip(part, outcomes, strict=True):
                print(f"{job.name:<50} {seconds:5.1f} s  {error or 'done'}", flush=True)
                failed += [job.name] if error else []
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    print(f"{len(jobs) - len(failed)} of {len(jobs)} done, {seconds:.0f} s of processor time")
    return int(bool(failed))


def _python(checkout: Path, *arguments: str) -> subprocess.Popen[str]:
    # The package of the checkout comes before an installed one.
    env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=checkout,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _check_policies(checkout: Path) -> None:
    """Print which package is run, and the policies that only one of checkout and this script has."""
    place, errors = _python(checkout, "-c", "import fsrl_ext; print(fsrl_ext.__file__)").communicate()
    if not place.strip().startswith(f"{checkout}{os.sep}"):
        raise SystemExit(f"checkout must hold the package fsrl_ext, got {checkout} {errors}")
    listed, _ = _python(checkout, "-m", "fsrl_ext.cli", "list", "policies").communicate()
    names = set(re.findall(r"^\W*([a-z][a-z0-9_]*)\s", listed, re.MULTILINE)) - {"policy"}
    print(f"{place.strip()}: {len(names & POLICIES.keys())} policies")
    if unknown := sorted(names - POLICIES.keys()):
        print(f"this script has no run of {', '.join(unknown)}")
    if missing := sorted(POLICIES.keys() - names):
        print(f"the checkout does not list {', '.join(missing)}")


def _do(job: Job, checkout: Path, out: Path) -> tuple[str, float]:
    """Run one job; return what went wrong, if anything did, and the seconds that the job took."""
    begun = time.monotonic()
    command = shlex.split(job.command.format(out=out))
    if not job.trains:
        command += ["--json", str(out / f"{job.name}.json")]
    process = _python(checkout, "-m", "fsrl_ext.cli", *command)
    if job.interrupted:
        snapshot = out / job.name / "checkpoints" / "resume.pt"
        while process.poll() is None and not snapshot.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate()
        process = _python(checkout, "-m", "fsrl_ext.cli", "resume", str(out / job.name), "--quiet")
    _, errors = process.communicate()
    error = ""
    if process.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        error = f"exit code {process.returncode}: {last}"
    return error, time.monotonic() - begun


def _compare(options: argparse.Namespace) -> int:
    given = dict(pair.split("=", 1) for pair in options.renamed)
    jobs = all_jobs(options.only)
    places = (options.first, options.second)
    columns: dict[str, list[tuple[str, Columns, Columns]]] = defaultdict(list)
    differences: dict[str, list[str]] = {}
    counts: dict[str, str] = {}
    for job in jobs:
        files = [x / (f"{job.name}/progress.csv" if job.trains else f"{job.name}.json") for x in places]
        if not all(file.exists() for file in files):
            differences[job.name] = [f"no {file}" for file in files if not file.exists()]
        elif job.trains:
            one, other = (read_columns(file) for file in files)
            one = {given.get(name, name): values for name, values in one.items()}
            columns[job.policy].append((job.name, one, other))
            differences[job.name], counts[job.name] = _compare_run(files[0].parent, files[1].parent)
            differences[job.name] += different_columns(one, other)
        else:
            one, other = (dict(_numbers(json.loads(file.read_text()))) for file in files)
            differences[job.name] = different_entries(one, other)
            counts[job.name] = f"{len(one)} numbers"
    for job in jobs:
        lines = differences[job.name]
        print(f"{job.name:<50} " + (f"DIFFERENT: {lines[0]}" if lines else f"equal ({counts[job.name]})"))
        for line in lines[1:]:
            print(f"{'':<50}            {line}")
    for line in changed_names(columns):
        print(line)
    different = sum(bool(x) for x in differences.values())
    print(f"{len(jobs)} compared, {different} different")
    return int(different > 0)


Columns = dict[str, np.ndarray]


def read_columns(file: Path) -> Columns:
    """Read the columns of a ``progress.csv`` but for times; NaN where a row has no value."""
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    names = [name for name in rows[0] if not re.search("time|speed", name)]
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


def different_columns(one: Columns, other: Columns) -> list[str]:
    """Return a line for each column of both whose values differ, the earliest difference first."""
    lines = []
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if len(a) != len(b):
            return [f"progress.csv has {len(a)} rows, then {len(b)}"]
        if not _same(a, b):
            row = next(i for i in range(len(a)) if not _same(a[i : i + 1], b[i : i + 1]))
            lines.append((row, f"{name} at env_step {one['env_step'][row]:.0f}: {a[row]!r}, then {b[row]!r}"))
    return [line for _, line in sorted(lines)]


def _compare_run(one: Path, other: Path) -> tuple[list[str], str]:
    """Return the differences of results and parameters, and how much was compared."""
    results = [json.loads((x / "result.json").read_text()) for x in (one, other)]
    numbers = [dict(_numbers({key: x.get(key) for key in _OF_A_RESULT})) for x in results]
    lines = [f"result.json {line}" for line in different_entries(*numbers)]
    columns, tensors = len(read_columns(one / "progress.csv")), 0
    for name in ("best.pt", "last.pt"):
        files = [x / "checkpoints" / name for x in (one, other)]
        a, b = (parameters_of(file) for file in files)
        lines += [f"{name} {line}" for line in different_entries(a, b)]
        tensors += len(a)
    return lines, f"{columns} columns, {len(numbers[0])} numbers, {tensors} tensors"


def parameters_of(checkpoint: Path) -> dict[str, Any]:
    """Return the tensors of a saved policy; the progress of its learning (``_extra_state``) is left out."""
    policy = torch.load(checkpoint, map_location="cpu", weights_only=True)["policy"]
    return {name: value for name, value in policy.items() if name != "_extra_state"}


def _numbers(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and words of nested collections, each with its path."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key not in ("command", "checkpoint") and not _NOT_COMPARED.search(key):
                yield from _numbers(value, f"{path}.{key}".lstrip("."))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _numbers(value, f"{path}[{i}]")
    else:
        yield path, data


def different_entries(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return a line for each entry that differs or that one of the two lacks."""
    lines = [f"{name} is missing in the second" for name in one if name not in other]
    lines += [f"{name} is missing in the first" for name in other if name not in one]
    for name in one:
        if name in other and not _equal(one[name], other[name]):
            a, b = one[name], other[name]
            lines.append(f"{name}" if isinstance(a, torch.Tensor) else f"{name}: {a!r}, then {b!r}")
    return lines


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and (a == b or (a != a and b != b))


def changed_names(columns: dict[str, list[tuple[str, Columns, Columns]]]) -> list[str]:
    """Return a line for each column that was renamed, that vanished or that appeared, with the policies.

    A column was renamed if the values of one that only the second has are the same in every run of the
    policy. Of several, that with the most similar name is taken.
    """
    changes: dict[str, list[str]] = defaultdict(list)
    for policy, runs in columns.items():
        old, new = ({name for run in runs for name in run[i]} for i in (1, 2))
        pairs = [
            (a, b)
            for a in old - new
            for b in new
            if all((a in x) == (b in y) and (a not in x or _same(x[a], y[b])) for _, x, y in runs)
        ]
        pairs.sort(key=lambda pair: (pair[1] in old, -difflib.SequenceMatcher(None, *pair).ratio(), pair))
        renamed: dict[str, str] = {}
        for a, b in pairs:
            if b not in old and a not in renamed and b not in renamed.values():
                renamed[a] = b
        for a in sorted(old - new):
            if a in renamed:
                change = f"renamed:  {a} -> {renamed[a]}"
                values = np.concatenate([x[a] for _, x, _ in runs if a in x])
                if len(np.unique(values[~np.isnan(values)])) < 2:
                    change += " (one value everywhere: not certain)"
            else:
                others = [b for x, b in pairs if x == a]
                change = f"vanished: {a}" + (f" (same values: {others[0]})" if others else "")
            changes[change].append(policy)
        for b in sorted(new - old - set(renamed.values())):
            changes[f"appeared: {b}"].append(policy)
    return [f"{change}   [{', '.join(names)}]" for change, names in sorted(changes.items(), reverse=True)]


if __name__ == "__main__":
    sys.exit(main())
