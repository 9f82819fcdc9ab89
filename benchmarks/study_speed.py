"""Measures how long ``fsrl-ext table``, ``plot`` and ``report`` take for a study of 200 finished runs.

    python benchmarks/study_speed.py [RUN] [--runs 200] [--rows 1000] [--folder DIR]

Copies a finished run 200 times, with 5 policies x 8 tasks x 5 seeds in the configs and results and other
numbers in each, and repeats the rows of its curve until there are 1,000, as in a run of a million steps that
logs every 1,000. Without ``RUN`` a short run is trained first. Prints the processor time (user and system,
with the start of Python) and the wall time of each command, the least of three, and the size of the file.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report import text_table
from fsrl_ext.report.files import read_json, write_json

POLICIES = ("cvpo", "sac_lag", "ddpg_lag", "cpo", "ppo_lag")
COMMANDS = {
    "table": ["table"],
    "table --against published": ["table", "--against", "published"],
    "plot --episodes both": ["plot", "--episodes", "both", "--out", "curves.png"],
    "plot --iqm": ["plot", "--iqm", "--out", "iqm.pdf"],
    "plot --kind scatter": ["plot", "--kind", "scatter", "--out", "scatter.svg"],
    "report": ["report", "--out", "report.html"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", help="a finished run folder")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where the copies are made and kept (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary) / "study"
        source = Path(options.run) if options.run else train(Path(temporary))
        if not folder.exists():
            copy(source, folder, options.runs, options.rows)
        rows = []
        for name, arguments in COMMANDS.items():
            command, *rest = arguments
            times = [measure([command, str(folder), *rest], Path(temporary)) for _ in range(options.repeats)]
            cpu, wall = np.min(times, axis=0)
            written = [Path(temporary) / x for x in rest if Path(x).suffix]
            size = f"{written[0].stat().st_size / 1e6:.1f} MB" if written else "-"
            rows.append([name, f"{cpu:.1f} s", f"{wall:.1f} s", size])
    print(text_table(["fsrl-ext", "processor time", "wall time", "file"], rows))
    print(f"{options.runs} runs with {options.rows:,} rows each, the least of {options.repeats}")


def train(folder: Path) -> Path:
    """Trains a short run; returns its folder."""
    command = [
        "train",
        "ddpg_lag",
        "KnownOptimumFirstSix-v0",
        "--steps",
        "4000",
        "--warmup-steps",
        "1000",
        "--out",
        str(folder),
    ]
    command += ["--run-name", "source", "--quiet"]
    subprocess.run([sys.executable, "-m", "fsrl_ext.cli", *command], check=True, stdout=subprocess.DEVNULL)
    return folder / "source"


def copy(source: Path, folder: Path, runs: int, rows: int) -> None:
    """Copies a run with other policies, tasks, seeds and numbers."""
    config, result = read_json(source / "config.json"), read_json(source / "result.json")
    header, *lines = (source / "progress.csv").read_text().splitlines()
    rng = np.random.default_rng(0)
    for number in range(runs):
        names: dict[str, Any] = {
            "policy": POLICIES[number % 5],
            "task": f"Task{number // 5 % 8}-v0",
            "seed": number // 40,
        }
        target = folder / f"run{number:03}"
        target.mkdir(parents=True)
        factor = float(rng.uniform(0.8, 1.2))
        judged = {
            which: {**result[which], "return_mean": result[which]["return_mean"] * factor}
            for which in ("best", "last")
        }
        write_json(target / "config.json", {**config, **names})
        write_json(target / "result.json", {**result, **judged, "config": {**result["config"], **names}})
        end = int(result["env_step"])
        repeated = []
        for row in range(rows):
            _, _, rest = lines[row % len(lines)].partition(",")
            repeated.append(f"{(row + 1) * end // rows},{rest}")
        (target / "progress.csv").write_text("\n".join([header, *repeated, ""]))
        shutil.copytree(source / "checkpoints", target / "checkpoints")


def measure(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Processor time and wall time of a command, in seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "fsrl_ext.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


if __name__ == "__main__":
    main()
