"""Summaries of finished runs: one small JSON file per run, to be kept under version control.

A file ``<task>/<policy>/[<label>/]seed<k>.json`` has the command, versions, config and its digest, both final
evaluations, the selections, and the curve of the training episodes with at most 200 points. Tables and
figures read it as they read the run's folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.cost_names import LimitUnit, cost_keys, limit_unit_of, names_of, training_column
from fsrl_ext.report.files import in_json, read_json, write_json
from fsrl_ext.report.progress import read_progress, read_result
from fsrl_ext.report.study.collect import run_places
from fsrl_ext.report.study.read import UnfinishedRunError, read_run

MOST_POINTS = 200
"""Points of a curve, at most; the first and the last one are kept."""

_KEPT = (
    *("command", "versions", "config_digest", "config", "env_step", "gradient_step", "train_episodes"),
    *("share_above_limit", "seconds", "cores", "best", "last"),
)
_KEPT_WHERE_THERE = ("resumed", "init_from")

# Of meta-learners: what the adaptation starts from, and how well the meta-gradients agree.
_META = {
    "start_return": "update/adaptation/return_0",
    "start_cost": "update/adaptation/cost_0",
    "cosine": "update/meta/cosine",
}


def summarise(
    paths: Sequence[str | os.PathLike[str]], out: Path, *, label: str = "", replace: bool = False
) -> tuple[list[Path], list[str]]:
    """Writes a summary of every finished run below some folders.

    :param paths: run folders, and folders of run folders.
    :param out: the folder that the files ``<task>/<policy>/[<label>/]seed<k>.json`` are written below.
    :param label: name of a folder that tells runs with other settings apart.
    :param replace: whether a file with other content is replaced.
    :return: the files, and one line for each run that has not finished.
    :raises ValueError: if two runs have one file, or a file with other content is there. Nothing is written
        then.
    :raises RunFolderError: if a path has no runs, or a file is damaged.
    """
    if label and (Path(label).is_absolute() or ".." in Path(label).parts):
        raise ValueError(f"--label must be the name of a folder, got {label!r}")
    runs: dict[Path, Path] = {}
    data: dict[Path, dict[str, Any]] = {}
    skipped = []
    folders = dict.fromkeys(x for path in paths for x in run_places(Path(path)) if x.is_dir())
    if not folders:
        raise ValueError("there are no run folders, and result files are summaries already")
    for folder in folders:
        try:
            content = summary(folder)
        except UnfinishedRunError as error:
            skipped.append(str(error))
            continue
        config = content["config"]
        file = (
            out / config["task"].replace(":", "_") / config["policy"] / label / f"seed{config['seed']}.json"
        )
        if file in runs:
            raise ValueError(f"{folder} and {runs[file]} would both be {file}; --label tells runs apart")
        if file.exists() and not replace and in_json(read_json(file)) != in_json(content):
            raise ValueError(f"{file} is there with other content; --replace replaces it")
        runs[file], data[file] = folder, content
    for file, content in data.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content, indent=1)
    return list(data), skipped


def summary(folder: Path) -> dict[str, Any]:
    """What a summary keeps of a run.

    :raises UnfinishedRunError: if the run has not finished.
    :raises RunFolderError: if one of its files is damaged.
    """
    read_run(folder)  # checks both files, and that the run has finished
    result = read_result(folder)
    keys = cost_keys(names_of(result["config"]), len(result["config"]["cost_limit"]))
    selections = {
        key: [_short(point[key]) for point in result["selections"]]
        for key in ("env_step", "return_mean", "cost_mean", "feasible")
    }
    kept = (*_KEPT, *(name for name in _KEPT_WHERE_THERE if name in result))
    return {
        **{name: result[name] for name in kept},
        "curve": _curve(folder, keys, limit_unit_of(result["config"])),
        "selections": selections,
    }


def _curve(folder: Path, keys: Sequence[str], unit: LimitUnit) -> dict[str, list[Any]]:
    """The training episodes, as means over collect cycles.

    :param keys: what tells the costs apart in the columns.
    :param unit: of the limits, and of the costs.
    """
    progress = read_progress(folder)
    returns = progress["train/returns_stat/mean"]
    costs = np.stack([progress[training_column(key, unit)] for key in keys], axis=1)
    there = np.flatnonzero(~np.isnan(returns))
    kept = there[np.unique(np.linspace(0, len(there) - 1, min(len(there), MOST_POINTS)).astype(int))]
    curve = {
        "env_step": progress["env_step"][kept],
        "train_return": returns[kept],
        "train_cost": costs[kept],
        **{name: progress[column][kept] for name, column in _META.items() if column in progress},
    }
    names = [f"train/violation/{key}" for key in keys]
    if all(name in progress for name in names):
        violation = np.stack([progress[name] for name in names], axis=1)
        if np.isfinite(violation[there]).all():
            # Of all cycles since the point before, so that the sum over the curve stays that of the run.
            sums = np.cumsum(np.nan_to_num(violation), axis=0)[kept]
            curve["violation"] = np.diff(sums, axis=0, prepend=0.0)
    return {name: [_short(x) for x in values.tolist()] for name, values in curve.items()}


def _short(value: Any) -> Any:
    """Five digits of a number, and of each of several costs; a single cost is a bare number."""
    if isinstance(value, list):
        return _short(value[0]) if len(value) == 1 else [_short(x) for x in value]
    return float(f"{value:.5g}")
