"""Whether the runs of a study can begin, checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.training.build import check_actions, check_device, check_effects, check_task
from fsrl_ext.experiment.training.machine import check_machine
from fsrl_ext.report.folder import RunFolder


def check_folder(folder: Path) -> None:
    """Checks that a folder can hold runs; it need not exist.

    :raises RunFolderError: if there is a file, or a run, at the path.
    """
    if RunFolder(folder).config.exists():
        raise RunFolderError(f"out must be a folder that holds runs, and {folder} is a run itself")
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"out must be a folder, and {path} is a file")


def check_runs(configs: Iterable[ExperimentConfig], *, on_this_machine: bool) -> None:
    """Checks that tasks exist and fit the limits, and that this machine has what the settings ask for.

    Each task is built once, and takes one step.

    :param on_this_machine: whether the runs run here, and not on a cluster whose devices may be others.
    :raises ValueError: for a task, a limit, a device or a setting that cannot be used.
    :raises ImportError: for a suite or a package that is not installed.
    """
    tasks: dict[tuple[Any, ...], list[ExperimentConfig]] = {}
    devices = set()
    for config in configs:
        agents = config.training.agents
        key = (config.env_id, len(config.cost_limit), agents, *config.env_arguments.values())
        tasks.setdefault(key, []).append(config)
        if on_this_machine:
            devices.add(config.device)
            check_machine(config)
    for device in sorted(devices):
        check_device(device)
    for of_task in tasks.values():
        spec = check_task(of_task[0])
        for config in of_task:
            check_actions(config, spec)
            check_effects(config, spec)
