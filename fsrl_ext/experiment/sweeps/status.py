"""How far a run of a sweep is, from its run folder alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from fsrl_ext.errors import CheckpointError, RunFolderError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.sweeps.plan import PlannedRun
from fsrl_ext.experiment.training.lock import trained_by
from fsrl_ext.experiment.training.snapshot import read_snapshot
from fsrl_ext.report import read_result
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.links import check_links
from fsrl_ext.report.records import NOTED, read_record


class RunState(Enum):
    """How far a run is."""

    NEW = "has not begun"
    STARTED = "can be continued"
    FINISHED = "has finished"
    LOCKED = "is being trained"
    BROKEN = "cannot be continued"
    OTHER = "has other settings"


@dataclass(frozen=True)
class RunStatus:
    """How far a run is, and what there is to say about that.

    :param state: how far the run is.
    :param reason: why the run cannot be continued, which process trains it, or which settings differ; empty
        for the other states.
    """

    state: RunState
    reason: str = ""


def run_state(study_folder: str | os.PathLike[str], planned: PlannedRun) -> RunStatus:
    """How far a planned run is; reads the run folder and changes nothing.

    A run that a process trains at this moment is ``LOCKED``, whatever its files say. A run with a snapshot is
    ``STARTED``, and so is one whose ``config.json`` is all that it has, because it was cut off before its
    first snapshot. A folder with a file that is damaged, or with policies but no snapshot, is ``BROKEN``.

    :param study_folder: the parent of the run folder.
    """
    folder = RunFolder(Path(study_folder) / planned.name)
    if not os.path.lexists(folder.path):
        return RunStatus(RunState.NEW)
    owner = trained_by(folder)
    if owner is not None:
        return RunStatus(RunState.LOCKED, f"process {owner} trains it")
    try:
        state, config = _read(folder)
    except (RunFolderError, CheckpointError) as error:
        return RunStatus(RunState.BROKEN, " ".join(str(error).split()))
    different = different_settings(config, planned.config)
    if different:
        return RunStatus(RunState.OTHER, "; ".join(different))
    return RunStatus(state)


def _read(folder: RunFolder) -> tuple[RunState, dict[str, Any]]:
    """Whether a run has finished or can be continued, and its settings.

    The conditions are those of :func:`fsrl_ext.experiment.resume`.

    :raises RunFolderError: if the run cannot be continued.
    :raises CheckpointError: if the snapshot cannot be used.
    """
    check_links(folder)
    if folder.snapshot.is_file():
        noted = read_snapshot(folder.snapshot)["run"]
        return RunState.STARTED, {**noted["config"], "init_from": noted["init_from"]}
    if folder.result.is_file():
        result = read_result(folder.path)
        if result["status"] == "finished":
            return RunState.FINISHED, {**result["config"], "init_from": result.get("init_from")}
    if folder.best.exists() or folder.last.exists():
        raise RunFolderError(f"{folder.path} has policies but no snapshot to go on from")
    if not folder.config.is_file():
        raise RunFolderError(f"{folder.path} has no {folder.config.name}")
    return RunState.STARTED, read_record(folder.config, NOTED)


def different_settings(saved: Mapping[str, Any], planned: ExperimentConfig) -> list[str]:
    """The settings in which a saved run and a planned one differ, each with both values.

    :param saved: the settings that a file of the run folder has, and ``init_from`` if the run did not begin
        with fresh networks.
    """
    there, here = _flat(saved), _flat(planned.as_dict())
    there.setdefault("selection_min_episodes", there.get("selection_episodes"))  # as in earlier versions
    there.pop("command", None)
    if "costs" not in here:  # the run noted the names that its task gives to its costs
        there.pop("costs", None)
    if there.get("init_from") is None:
        there.pop("init_from", None)
    else:
        there["init_from"] = "a saved policy"
        here["init_from"] = "fresh networks"
    absent = "absent"
    return [
        f"{name} is {there.get(name, absent)} there and {here.get(name, absent)} in the plan"
        for name in sorted(there.keys() | here.keys())
        if there.get(name, absent) != here.get(name, absent)
    ]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by name, those of the policy and of training among the others."""
    nested = {name: value for name, value in config.items() if name in ("policy_config", "training")}
    flat = {name: value for name, value in config.items() if name not in nested}
    return {**flat, **{name: value for part in nested.values() for name, value in part.items()}}
