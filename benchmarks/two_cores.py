"""Runs the same short training with one core and with two in alternation, and compares times and files.

    python benchmarks/two_cores.py                               # CVPO on CarCircle, three rounds
    python benchmarks/two_cores.py --policy sac_lag --rounds 5
    python benchmarks/two_cores.py --set steps=20000 --set collect_ahead=false

The command prints the wall-clock seconds of every run, the median ratio, and whether the two runs of every
round are equal: ``progress.csv`` but for times, both policies, and ``result.json`` but for seconds and cores.
The machine needs two cores with nothing else to do; otherwise the ratio says little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsrl_ext.experiment import make_config, run
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report import read_progress, read_result
from fsrl_ext.report.files import write_json
from fsrl_ext.report.folder import RunFolder


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two run folders."""
    curves = [read_progress(path) for path in (one, other)]
    different = sorted(set(curves[0]) ^ set(curves[1]))
    for name in set(curves[0]) & set(curves[1]):
        timed = "time" in name or "speed" in name
        if not timed and not np.array_equal(curves[0][name], curves[1][name], equal_nan=True):
            different.append(f"progress.csv: {name}")
    for name in ("best", "last"):
        first, second = (read_checkpoint(getattr(RunFolder(path), name)) for path in (one, other))
        if first["counters"] != second["counters"] or not _same(first["policy"], second["policy"]):
            different.append(f"{name}.pt")
    results = [read_result(path) for path in (one, other)]
    for result in results:
        for name in ("seconds", "cores", "command"):
            del result[name]
    return different if results[0] == results[1] else [*different, "result.json"]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def main() -> None:
    """Runs the trainings and prints a line for each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--policy", default="cvpo")
    parser.add_argument("--task", default="SafetyCarCircle-v0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the runs"
    )
    parser.add_argument("--json", help="write the numbers into this file")
    options = parser.parse_args()
    known = list_settings(options.policy)
    settings: dict[str, Any] = {"steps": 12_000, "selections": 4, "final_episodes": 10}
    for text in options.set:
        name, _, value = text.partition("=")
        settings[name] = known[name].parse(value)
    config = make_config(options.policy, options.task, **settings)
    rounds: list[dict[str, Any]] = []
    for i in range(options.rounds):
        with tempfile.TemporaryDirectory() as place:
            seconds, folders = {}, {}
            for cores in (1, 2) if i % 2 == 0 else (2, 1):
                begun = time.perf_counter()
                name = f"cores{cores}"
                folders[cores] = run(
                    config, out=place, run_name=name, show_progress=False, cores=cores
                ).folder
                seconds[cores] = time.perf_counter() - begun
            different = differences(folders[1], folders[2])
        rounds.append({"seconds": [seconds[1], seconds[2]], "different": different})
        print(
            f"one core {seconds[1]:.1f} s, two cores {seconds[2]:.1f} s, "
            f"ratio {seconds[2] / seconds[1]:.2f}; "
            f"{'equal' if not different else 'different: ' + ', '.join(different)}",
            flush=True,
        )
    ratio = statistics.median(x["seconds"][1] / x["seconds"][0] for x in rounds)
    print(f"median ratio of the times, two cores to one: {ratio:.2f}")
    if options.json:
        write_json(Path(options.json), {"ratio": ratio, "rounds": rounds, "settings": settings}, indent=1)


if __name__ == "__main__":
    main()
