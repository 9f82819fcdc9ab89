"""Reads finished runs from run folders and from result files ``seed<k>.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.cost_names import LimitUnit, cost_keys, limit_unit_of, names_of, training_column
from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.files import read_json
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.progress import read_columns, read_result
from fsrl_ext.report.study.run import Judged, Selections, StudyRun, Training


class UnfinishedRunError(RunFolderError):
    """A run has no result yet, or was interrupted."""


def read_run(folder: Path) -> StudyRun:
    """Reads a run folder.

    :raises UnfinishedRunError: if the run has not finished.
    :raises RunFolderError: if one of its files is damaged.
    """
    if not RunFolder(folder).result.is_file():
        raise UnfinishedRunError(f"{folder} has no result.json: the run has not finished")
    result = read_result(folder)
    if result["status"] != "finished":
        steps, budget = result["env_step"], result["config"]["steps"]
        raise UnfinishedRunError(f"{folder} was interrupted at {steps:,.0f} of {budget:,.0f} steps")
    num_costs = len(result["config"]["cost_limit"])
    keys = cost_keys(names_of(result["config"]), num_costs)
    points = result["selections"]
    selections = Selections(
        steps=np.array([x["env_step"] for x in points]),
        returns=np.array([x["return_mean"] for x in points], dtype=float),
        costs=np.array([x["cost_mean"] for x in points], dtype=float).reshape(len(points), num_costs),
        feasible=np.array([x["feasible"] for x in points], dtype=bool),
    )
    training = _progress(folder, keys, limit_unit_of(result["config"]))
    return _run(folder, result, selections, training, label="", policy="")


def _progress(folder: Path, keys: Sequence[str], unit: LimitUnit) -> Training:
    """The rows of ``progress.csv`` in which training episodes ended.

    :param keys: what tells the costs apart in the columns.
    :param unit: of the limits, and of the costs that are read.
    """
    num_costs = len(keys)
    costs = [training_column(key, unit) for key in keys]
    excess = [f"train/violation/{key}" for key in keys]
    names = ["env_step", "train/returns_stat/mean", "train/n_collected_episodes", *costs, *excess]
    table = read_columns(RunFolder(folder).progress, names)
    there = np.isfinite(table[:, 1])
    table = table[there]
    violation = table[:, 3 + num_costs :]
    return Training(
        steps=table[:, 0],
        returns=table[:, 1],
        costs=table[:, 3 : 3 + num_costs],
        episodes=np.nan_to_num(table[:, 2]),
        violation=violation if np.isfinite(violation).all() else None,
        thinned=False,
    )


def read_result_file(path: Path) -> StudyRun:
    """Reads a file ``.../<task>/<policy>/[<label>/]seed<k>.json``, which holds a finished run.

    :raises RunFolderError: if the file is damaged or something else.
    """
    try:
        data = read_json(path)
        config, curve, points = data["config"], data["curve"], data["selections"]
        num_costs = len(config["cost_limit"])
        selections = Selections(
            steps=np.array(points["env_step"], dtype=float),
            returns=_numbers(points["return_mean"]),
            costs=_costs(points["cost_mean"], num_costs),
            feasible=np.array(points["feasible"], dtype=bool),
        )
        steps = np.array(curve["env_step"], dtype=float)
        # The file has no numbers of episodes; for episodes of equal length they grow with the steps.
        share = np.diff(steps, prepend=0.0) / max(float(steps[-1]) if len(steps) else 0.0, 1.0)
        training = Training(
            steps=steps,
            returns=_numbers(curve["train_return"]),
            costs=_costs(curve["train_cost"], num_costs),
            episodes=share * data["train_episodes"],
            violation=_costs(curve["violation"], num_costs) if "violation" in curve else None,
            thinned=True,
        )
        policy, label = _names(path, config["task"])
        return _run(path, data, selections, training, label=label, policy=policy)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, RecursionError) as error:
        if isinstance(error, RunFolderError):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RunFolderError(f"{path} is damaged or no result of a run ({reason})") from error


def _names(path: Path, task: str) -> tuple[str, str]:
    """Policy and label from the folders of a result file below that of its task."""
    folders = path.absolute().parent.parts
    if task not in folders:
        return "", ""
    below = folders[len(folders) - folders[::-1].index(task) :]
    return (below[0] if below else ""), "/".join(below[1:])


def _run(
    path: Path,
    data: Mapping[str, Any],
    selections: Selections,
    training: Training,
    *,
    label: str,
    policy: str,
) -> StudyRun:
    """A run from the parts that both kinds of files share.

    :param policy: the name where the config has none, as in files of other packages.
    """
    config = data["config"]
    nested = {
        name: config[name] for name in ("policy_config", "training") if isinstance(config.get(name), dict)
    }
    settings = {k: v for k, v in config.items() if k not in nested}
    settings = {**settings, **{k: v for part in nested.values() for k, v in part.items()}}
    settings = {"policy": policy, "steps": data["env_step"], **settings, "label": label or None}
    limits = tuple(float(x) for x in config["cost_limit"])
    names = names_of(config)
    episodes = int(data["train_episodes"])
    apart = [*(names or ()), *(["discounted"] if limit_unit_of(config) == "discounted" else [])]
    return StudyRun(
        path=path,
        settings=settings,
        policy=str(settings["policy"]),
        task=str(config["task"]) + (f" ({', '.join(apart)})" if apart else ""),
        label=label,
        seed=int(config["seed"]),
        limits=limits,
        env_step=int(data["env_step"]),
        train_episodes=episodes,
        share_above=float(data["share_above_limit"]) if episodes else None,
        seconds=float(data["seconds"]),
        best=_judged(data["best"], len(limits)),
        last=_judged(data["last"], len(limits)),
        selections=selections,
        training=training,
    )


def _judged(data: Mapping[str, Any], num_costs: int) -> Judged:
    """A final evaluation; a single cost may be a bare number.

    :raises ValueError: if the number of costs is not that of the limits.
    """
    cost = np.atleast_1d(np.array(data["cost_mean"], dtype=float))
    if len(cost) != num_costs:
        raise ValueError(f"{len(cost)} costs for {num_costs} limits")
    episodes, other = data.get("costs"), data.get("other_cost_mean")
    return Judged(
        env_step=int(data["env_step"]),
        return_mean=float(data["return_mean"]),
        cost_mean=tuple(cost.tolist()),
        feasible=bool(data["feasible"]),
        costs=None if episodes is None else np.array(episodes, dtype=float).reshape(-1, num_costs),
        other_cost_mean=None if other is None else tuple(map(float, np.atleast_1d(other))),
    )


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in values], dtype=float)


def _costs(values: Sequence[Any], num_costs: int) -> np.ndarray:
    """``[T, C]`` from numbers, or from lists of several costs.

    Older files keep a number of several costs, the first one; the others are then NaN.
    """
    if values and isinstance(values[0], list):
        return np.array(values, dtype=float).reshape(len(values), num_costs)
    costs = np.full((len(values), num_costs), np.nan)
    if num_costs:
        costs[:, 0] = _numbers(values)
    return costs
