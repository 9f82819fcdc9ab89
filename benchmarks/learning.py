"""Makes learning results over several seeds: a sweep, whose runs are summarised.

    python benchmarks/learning.py run cvpo SafetyBallCircle-v0 --seeds 0 1 2 --steps 500000

The seeds that have no result file are trained, and runs that were cut off are continued, by ``fsrl-ext
sweep``, one core for each run. Further options are those of ``fsrl-ext sweep``. The finished runs are then
summarised in files ``benchmarks/results/<task>/<policy>/[<label>/]seed<k>.json``, as ``fsrl-ext summarise``
does, and ``fsrl-ext table benchmarks/results`` compares them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsrl_ext.cli import main as fsrl_ext_main
from fsrl_ext.report.study.summary import summarise

RESULTS = Path(__file__).parent / "results"


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
    """Trains the seeds without a result file, and summarises the finished runs; the sweep's exit code."""
    place = Path(options.task, options.policy, options.label)
    missing = [seed for seed in options.seeds if not (RESULTS / place / f"seed{seed}.json").exists()]
    if not missing:
        return 0
    study = Path(options.runs) / place
    sweep = ["sweep", "--policies", options.policy, "--tasks", options.task, *settings]
    sweep += ["--seeds", ",".join(map(str, missing)), "--cores", str(options.jobs), "--out", str(study)]
    code = fsrl_ext_main(sweep)
    if any(study.glob("*/result.json")):
        for file in summarise([study], RESULTS, label=options.label)[0]:
            print(file.relative_to(RESULTS))
    return code


if __name__ == "__main__":
    sys.exit(main())
