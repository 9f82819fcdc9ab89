"""Makes learning results over several seeds, two runs side by side, and continues unfinished runs.

    python benchmarks/learning.py run cvpo SafetyBallCircle-v0 --seeds 0 1 2 --steps 500000

The seeds that have no result file are trained, and runs that were cut off are continued, in single-threaded
jobs. Further options are those of ``fsrl-ext train``. Each finished run is then summarised in a file
``benchmarks/results/<task>/<policy>/[<label>/]seed<k>.json``, as ``fsrl-ext summarise`` does, and
``fsrl-ext table benchmarks/results`` compares them.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fsrl_ext.report import read_result
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.study.summary import summarise

RESULTS = Path(__file__).parent / "results"

_trainings: list[subprocess.Popen[bytes]] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    add_run(commands, runs="runs/learning")
    return run_command(*parser.parse_known_args())


def add_run(commands: Any, *, runs: str) -> None:
    """Adds the command ``run``."""
    run = commands.add_parser("run", help="train what is missing")
    run.add_argument("policy")
    run.add_argument("task")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--label", default="", help="name of a result folder of its own, for other settings")
    run.add_argument("--jobs", type=int, default=2)
    run.add_argument("--runs", default=runs, help="folder for the run folders")
    run.set_defaults(command=run_command)


def run_command(options: argparse.Namespace, settings: Sequence[str]) -> int:
    """Trains the seeds without a result file and summarises each as it ends; 1 if one of them failed."""
    signal.signal(signal.SIGTERM, _stop)
    folder = RESULTS / options.task / options.policy / options.label
    missing = [seed for seed in options.seeds if not (folder / f"seed{seed}.json").exists()]

    def make(seed: int) -> bool:
        run_folder = _train(options, settings, seed)
        if run_folder is None:
            return False
        (file,), _ = summarise([run_folder], RESULTS, label=options.label)
        print(f"{file.relative_to(RESULTS)}: done", flush=True)
        return True

    with ThreadPoolExecutor(options.jobs) as pool:
        return int(not all(list(pool.map(make, missing))))


def _train(options: argparse.Namespace, settings: Sequence[str], seed: int) -> Path | None:
    """The folder of a finished run, which is trained or continued; ``None`` if it failed."""
    name = "-".join(filter(None, [options.task, options.policy, options.label, f"seed{seed}"]))
    run_folder = Path(options.runs) / name
    if not _finished(run_folder):
        command = ["train", options.policy, options.task, "--seed", str(seed), *settings]
        command += ["--quiet", "--out", options.runs, "--run-name", name]
        if RunFolder(run_folder).snapshot.exists():
            command = ["resume", str(run_folder), "--quiet"]
        elif run_folder.exists():
            # A run that cannot be continued makes way, under a name that says so.
            run_folder.rename(run_folder.with_name(f"{name}-unfinished-{os.getpid()}"))
        with subprocess.Popen([sys.executable, "-m", "fsrl_ext.cli", *command]) as training:
            _trainings.append(training)
        if training.returncode:
            return None
    return run_folder if _finished(run_folder) else None


def _finished(run_folder: Path) -> bool:
    """Whether a run went to its end; an interrupted run leaves a result, too."""
    return RunFolder(run_folder).result.exists() and read_result(run_folder)["status"] == "finished"


def _stop(signal_number: int, frame: Any) -> None:
    """Stops the trainings; the next call continues them."""
    for training in _trainings:
        training.terminate()
    os._exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main())
