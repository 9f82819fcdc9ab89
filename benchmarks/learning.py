"""Makes learning results over several seeds, two runs side by side, and continues unfinished runs.

    python benchmarks/learning.py run cvpo SafetyBallCircle-v0 --seeds 0 1 2 --steps 500000
    python benchmarks/learning.py table

``run`` trains the seeds that have no result file and continues runs that were cut off, in single-threaded
jobs. It keeps one small file per run in ``benchmarks/results/<task>/<policy>/[<label>/]seed<k>.json``:
command, versions, config and its digest, curve (at most 200 points), final evaluations, wall time. ``table``
prints these files as ``fsrl-ext table benchmarks/results`` does, and two columns more. ``run`` hands further
options to ``fsrl-ext train``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report import read_progress, read_result, text_table
from fsrl_ext.report.files import read_json, write_json
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.study import study_table

RESULTS = Path(__file__).parent / "results"

_trainings: list[subprocess.Popen[bytes]] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    add_run(commands, runs="runs/learning")
    table = commands.add_parser("table", help="print all results")
    table.set_defaults(command=_table)
    options, rest = parser.parse_known_args()
    return options.command(options, rest)


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


def run_command(options: argparse.Namespace, settings: list[str]) -> int:
    signal.signal(signal.SIGTERM, _stop)
    folder = RESULTS / options.task / options.policy / options.label
    missing = [s for s in options.seeds if not (folder / f"seed{s}.json").exists()]
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(lambda seed: _train(options, settings, folder, seed), missing))
    return int(any(codes))


def _stop(signal_number: int, frame: Any) -> None:
    """Stops the trainings; the next call continues them."""
    for training in _trainings:
        training.terminate()
    os._exit(128 + signal_number)


def _train(options: argparse.Namespace, settings: list[str], folder: Path, seed: int) -> int:
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
        if training.returncode or not _finished(run_folder):
            return 1
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"seed{seed}.json", _small(run_folder), indent=1)
    print(f"{name}: done", flush=True)
    return 0


def _finished(run_folder: Path) -> bool:
    """Returns whether a run went to its end; an interrupted run leaves a result, too."""
    return (run_folder / "result.json").exists() and read_result(run_folder)["status"] == "finished"


def _small(run_folder: Path) -> dict[str, Any]:
    """Returns what a result file keeps of a run."""
    result, progress = read_result(run_folder), read_progress(run_folder)
    columns = {
        "env_step": "env_step",
        "train_return": "train/returns_stat/mean",
        "train_cost": "train/costs_stat/0/mean",
    }
    meta = {  # of meta-learners: what the adaptation starts from and the meta-gradients' agreement
        "start_return": "update/adaptation/return_0",
        "start_cost": "update/adaptation/cost_0",
        "cosine": "update/meta/cosine",
    }
    columns |= {k: v for k, v in meta.items() if v in progress}
    there = ~np.isnan(progress["train/returns_stat/mean"])
    kept = np.flatnonzero(there)
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), 200)).astype(int))]
    curve = {k: [float(f"{x:.5g}") for x in progress[v][kept]] for k, v in columns.items()}
    names: tuple[str, ...] = ("command", "versions", "config_digest", "config", "env_step", "gradient_step")
    names += ("train_episodes", "share_above_limit", "seconds", "cores", "best", "last")
    names += ("resumed",) if "resumed" in result else ()
    selections = {
        key: [float(f"{np.max(point[key]):.5g}") for point in result["selections"]]
        for key in ("env_step", "return_mean", "cost_mean", "feasible")
    }
    return {k: result[k] for k in names} | {"curve": curve, "selections": selections}


def _table(options: argparse.Namespace, rest: list[str]) -> int:
    """Prints ``fsrl-ext table`` of all results, and what only these result files are about."""
    if rest:
        sys.exit(f"unrecognized arguments: {' '.join(rest)}")
    text, _ = study_table([RESULTS], parts=["policies", "training"])
    print(text)
    rows = []
    for folder in sorted({path.parent for path in RESULTS.rglob("seed*.json")}):
        files = [read_json(p) for p in sorted(folder.glob("seed*.json"))]
        selected = "-"
        if np.isfinite(files[0]["config"]["cost_limit"]).any():
            selected = f"{sum(map(_selected_as_feasible, files))}/{len(files)}"
        late = ", ".join(f"{_late_cost(f['curve']):.1f}" for f in files)
        rows.append([str(folder.relative_to(RESULTS)), selected, late])
    print("Seed by seed\n")
    print(text_table(["task/policy", "selected as feasible", "late"], rows))
    print(
        "\nselected as feasible: seeds whose best policy was feasible in its selection, on other seeds than\n"
        "those of the final evaluation. late: mean cost of the training episodes in the second half of a run"
    )
    return 0


def _selected_as_feasible(file: dict[str, Any]) -> bool:
    """Whether the best policy was feasible in its selection."""
    points = file["selections"]
    return bool(points["feasible"][points["env_step"].index(file["best"]["env_step"])])


def _late_cost(curve: dict[str, list[Any]]) -> float:
    """Returns the mean cost of training episodes over the second half; of several costs the highest one."""
    points = zip(curve["env_step"], curve["train_cost"], strict=True)
    late = [c for step, c in points if c is not None and step > curve["env_step"][-1] / 2]
    return float(np.max(np.mean(np.array(late, dtype=float), axis=0)))


if __name__ == "__main__":
    sys.exit(main())
