"""Kills a sweep by SIGKILL half way, starts it again, and compares it with one that nobody killed.

    python benchmarks/sweep.py                                  # 12 runs of 30,000 steps, twice
    python benchmarks/sweep.py --steps 2000 --out /tmp/short    # shows that the script works

A study of 2 policies x 2 tasks x 3 seeds runs on two cores. First it runs to its end, and the script measures
how busy the cores are in the processes of the runs, from the start of the first to the end of the last. Then
the same study runs in another folder. When half of all environment steps are done, SIGKILL ends the process
of the sweep, and the same command starts again. All runs must then be complete, equal those of the first
sweep (rows of ``progress.csv`` but for times, both policies, and ``result.json`` but for seconds), and none
may have been trained twice: runs that had finished stay as they are, those that were cut off go on once, and
the others begin once.

The script prints what it found and writes ``benchmarks/results/sweep.json``. It exits with 0 if the runs are
equal and complete, none was trained twice, and the cores were busy for at least 85% of the time. That share
needs a machine with nothing else to do. A part that is complete is not done again, so that the script can be
started again after a stop.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kills

from fsrl_ext.experiment import PlannedRun, Resources, StudyPlan, make_config, run_plan
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.sweeps.folder import StudyFolder
from fsrl_ext.experiment.sweeps.overview import read_newest
from fsrl_ext.experiment.training.folder import has_finished
from fsrl_ext.report import read_result
from fsrl_ext.report.files import read_json, write_json

RESULT = Path(__file__).parent / "results" / "sweep.json"
CORES, SEEDS = 2, 3
BUSY = 0.85
"""The share of the cores' time that the runs must compute, at least."""
SAMPLE_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


class Load:
    """Measures the processes of a study's runs, which Linux knows by the log that they write.

    :param study: the folder.
    """

    def __init__(self, study: StudyFolder) -> None:
        self._logs = study.logs
        self._seconds: dict[int, float] = {}
        self._alive: dict[float, int] = {}

    def sample(self) -> None:
        """Reads the processor time of every process that is there."""
        alive = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                if Path(os.readlink(process / "fd" / "2")).parent != self._logs:
                    continue
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                self._seconds[int(process.name)] = sum(map(int, fields[11:15])) / _TICKS
                alive += 1
        if alive or self._alive:
            self._alive[time.monotonic()] = alive

    def summary(self) -> dict[str, float]:
        """The shares of the time of all cores in which the processes computed, and in which they existed."""
        times = [moment for moment, alive in self._alive.items() if alive]
        span = times[-1] - times[0]
        alive = [count for moment, count in self._alive.items() if moment <= times[-1]]
        return {
            "span_seconds": round(span, 1),
            "processor_seconds": round(sum(self._seconds.values()), 1),
            "busy": sum(self._seconds.values()) / (CORES * span),
            "occupied": sum(alive) / len(alive) / CORES,
            "processes": len(self._seconds),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=30_000, help="environment steps of each run")
    parser.add_argument("--policies", default="cvpo,sac_lag")
    parser.add_argument("--tasks", default="SafetyBallCircle-v0,SafetyCarCircle-v0")
    parser.add_argument(
        "--out", type=Path, default=Path("sweep-benchmark"), help="the folder of both studies"
    )
    parser.add_argument("--result", type=Path, default=RESULT, help="file of the results")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = make_plan(options.drive or options.out / "whole", options)
    if options.drive is not None:
        outcome = run_plan(plan)
        return int(len(outcome.finished) < len(plan.runs))
    options.out.mkdir(parents=True, exist_ok=True)
    whole = part(options, "whole", lambda folder: uninterrupted(folder, options))
    killed = part(options, "killed", lambda folder: interrupted(folder, options))
    different = {
        planned.name: kills.differences(
            options.out / "whole" / planned.name, options.out / "killed" / planned.name
        )
        for planned in plan.runs
    }
    equal = sum(not x for x in different.values())
    ok = equal == len(plan.runs) and not killed["trained_twice"] and whole["busy"] >= BUSY
    command = f"python benchmarks/sweep.py --steps {options.steps}"
    command += f" --policies {options.policies} --tasks {options.tasks}"
    write_json(
        options.result,
        {
            "command": command,
            "runs": len(plan.runs),
            "equal": equal,
            "different": {name: x for name, x in different.items() if x},
            "whole": whole,
            "killed": killed,
        },
        indent=1,
    )
    print(
        f"{equal} of {len(plan.runs)} runs equal, {len(killed['trained_twice'])} trained twice; "
        f"cores busy in trials: {whole['busy']:.1%} (killed and started again: {killed['busy']:.1%})"
    )
    return int(not ok)


def part(options: argparse.Namespace, name: str, measure: Any) -> dict[str, Any]:
    """What was measured in one study, now or when the script ran before."""
    file = options.out / f"{name}.json"
    settings = [options.steps, options.policies, options.tasks]
    if file.is_file() and read_json(file)["settings"] == settings:
        return read_json(file)["measured"]
    shutil.rmtree(options.out / name, ignore_errors=True)
    measured = measure(options.out / name)
    write_json(file, {"settings": settings, "measured": measured})
    return measured


def make_plan(folder: Path, options: argparse.Namespace) -> StudyPlan:
    """The study; runs of one seed come together, so that both studies end with the same ones."""
    runs = [
        PlannedRun(
            name=f"{task}-{policy}-seed{seed}",
            config=make_config(policy, task, seed=seed, **lengths(policy, options.steps)),
        )
        for seed in range(SEEDS)
        for policy in options.policies.split(",")
        for task in options.tasks.split(",")
    ]
    return StudyPlan(
        folder=folder,
        runs=tuple(runs),
        resources=Resources(cores=CORES),
        command="python benchmarks/sweep.py",
    )


def lengths(policy: str, steps: int) -> dict[str, int]:
    """The steps of a run and of its warm-up, which is the default in runs of 30,000 steps or more."""
    if "warmup_steps" not in list_settings(policy):
        return {"steps": steps}
    return {"steps": steps, "warmup_steps": min(10_000, steps // 3)}


def start(folder: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Starts the sweep in a process of its own."""
    arguments = ["--steps", str(options.steps), "--policies", options.policies, "--tasks", options.tasks]
    return subprocess.Popen([sys.executable, __file__, "--drive", str(folder), *arguments])


def uninterrupted(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs the study to its end."""
    driver, load = start(folder, options), Load(StudyFolder(folder.absolute()))
    return {**finish(driver, load), "trained_twice": []}


def interrupted(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs half of the study, kills the sweep, and runs it to its end."""
    study, plan = StudyFolder(folder.absolute()), make_plan(folder, options)
    names = [planned.name for planned in plan.runs]
    driver = start(folder, options)
    # The added half of a run lets the kill come in the middle of runs, and not between them.
    while sum(steps_of(study, name) for name in names) < options.steps * (len(names) + 1) / 2:
        if driver.poll() is not None:
            raise SystemExit("the sweep ended before it could be killed")
        time.sleep(SAMPLE_SECONDS)
    driver.kill()
    driver.wait()
    before = {name: fingerprint(study, name) for name in names}
    cut_off = [name for name in names if study.run(name).config.is_file() and before[name] is None]
    load = Load(study)
    measured = finish(start(folder, options), load)
    again = []
    for name in names:
        resumed = read_result(study.run(name).path).get("resumed", [])
        unchanged = before[name] is None or before[name] == fingerprint(study, name)
        if not unchanged or len(resumed) > int(name in cut_off):
            again.append(name)
    return {
        **measured,
        "finished_at_the_kill": sum(x is not None for x in before.values()),
        "cut_off": len(cut_off),
        "trained_twice": again,
    }


def finish(driver: subprocess.Popen[bytes], load: Load) -> dict[str, Any]:
    """Waits for a sweep, and measures its runs meanwhile."""
    while driver.poll() is None:
        load.sample()
        time.sleep(SAMPLE_SECONDS)
    if driver.returncode != 0:
        raise SystemExit(f"the sweep ended with exit code {driver.returncode}")
    return load.summary()


def steps_of(study: StudyFolder, name: str) -> int:
    """Environment steps of a run so far."""
    newest = read_newest(study.run(name).progress)
    return 0 if newest is None else newest.env_step


def fingerprint(study: StudyFolder, name: str) -> list[int] | None:
    """When the result of a finished run was written; ``None`` for a run that has not finished."""
    folder = study.run(name)
    if not has_finished(folder):
        return None
    return [path.stat().st_mtime_ns for path in (folder.result, folder.last, folder.progress)]


if __name__ == "__main__":
    raise SystemExit(main())
