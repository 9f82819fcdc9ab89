"""Training runs: from a config to a run folder, and from a folder that was cut off to its end."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tianshou.utils import BaseLogger

from fsrl_ext.errors import RunFolderError, checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.training import build
from fsrl_ext.experiment.training.callbacks import check_callbacks
from fsrl_ext.experiment.training.checkpoint import in_this_version, versions
from fsrl_ext.experiment.training.folder import new_run_folder
from fsrl_ext.experiment.training.session import Session
from fsrl_ext.experiment.training.snapshot import load_policy_state, read_snapshot
from fsrl_ext.experiment.training.warm_start import start_from
from fsrl_ext.report import read_result
from fsrl_ext.report.files import in_json, write_json
from fsrl_ext.report.folder import RunFolder


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    :param folder: the run folder.
    :param result: the content of its ``result.json``.
    """

    folder: Path
    result: dict[str, Any]

    @property
    def status(self) -> str:
        """``"finished"`` or ``"interrupted"``."""
        return self.result["status"]

    @property
    def resumable(self) -> bool:
        """Whether :func:`resume` can go on with it."""
        return RunFolder(self.folder).snapshot.is_file()


@checked(own=("callbacks",))
def run(
    config: ExperimentConfig,
    *,
    out: str | os.PathLike[str] = "runs",
    run_name: str | None = None,
    show_progress: bool = True,
    command: str | None = None,
    init_from: str | os.PathLike[str] | None = None,
    logger: BaseLogger | None = None,
    callbacks: Sequence[Any] = (),
) -> RunResult:
    """Trains a policy and judges it.

    The run folder holds ``config.json``, ``progress.csv``, TensorBoard events, ``checkpoints/best.pt`` and
    ``last.pt``, ``result.json`` and ``curves.png``. A keyboard interrupt ends the run early and cleanly;
    :func:`resume` goes on with it.

    .. code-block:: python

        run(config, logger=WandbLogger(project="safety", update_interval=1), callbacks=[MyCallback()])

    :param out: the run folder's parent.
    :param run_name: the run folder's name; a fresh one with a counter if not given.
    :param command: the command line to note in the result; Python code that makes the same run if not given.
    :param init_from: a run folder (its best policy) or a checkpoint file whose networks, target networks,
        multipliers and optimiser moments the policy starts with. Settings are the config's, learning rates
        and cost limits too, and counters start from zero; there is no warm-up with random actions.
    :param logger: a Tianshou logger of your own, beside the one that writes the run folder: it is given the
        same data over environment steps, writes at its own intervals, and is finalized at the end. A
        ``WandbLogger`` without a writer gets that of the run folder.
    :param callbacks: objects with any of the methods of :class:`~fsrl_ext.experiment.RunCallback`.
    :raises CheckpointError: if ``init_from`` is unusable or does not fit; nothing is written then.
    :raises ValueError: for a config or a callback that cannot be used; nothing is written then.
    :raises NonFiniteError: if an environment or a loss gives NaN; the last good policy is saved before.
    """
    callbacks = check_callbacks(callbacks)
    build.seed_everything(config)
    policy, spec = build.build_policy(config)
    origin = None if init_from is None else start_from(policy, config, init_from)
    folder = new_run_folder(Path(out), config, run_name)
    command = command or _python_command(config, init_from)
    noted = {"command": command, **({} if origin is None else {"init_from": origin})}
    write_json(folder.config, {**noted, **config.as_dict()})
    session = Session(
        config,
        policy,
        spec,
        folder,
        command=command,
        init_from=origin,
        logger=logger,
        callbacks=callbacks,
        show_progress=show_progress,
    )
    return RunResult(folder.path, session.execute())


@checked(own=("callbacks",))
def resume(
    folder: str | os.PathLike[str],
    *,
    show_progress: bool = True,
    logger: BaseLogger | None = None,
    callbacks: Sequence[Any] = (),
) -> RunResult:
    """Goes on with a run that was interrupted, killed or cut off, from its last snapshot.

    What was logged after the snapshot is logged again. In deterministic environments, with the same versions
    on the same machine, the run ends as if nothing had happened, bit for bit. Where the environments do not
    repeat themselves, a warning says so and new episodes begin. ``result.json`` notes each time under
    ``resumed``.

    :param folder: the run folder.
    :param logger: as for :func:`run`; the snapshot keeps none.
    :param callbacks: as for :func:`run`; the snapshot keeps none.
    :raises RunFolderError: if the run has finished, or the folder has no snapshot.
    :raises CheckpointError: if the snapshot is damaged, or from a version that saved other things.
    """
    callbacks = check_callbacks(callbacks)
    files = RunFolder(Path(folder))
    if not files.snapshot.is_file():
        raise RunFolderError(_why_not_resumable(files))
    snapshot = read_snapshot(files.snapshot)
    here, there = versions(), snapshot["versions"]
    for name in (x for x in here if here[x] != there.get(x)):
        warnings.warn(f"the run began with {name} {there.get(name)}, here it is {here[name]}", stacklevel=2)
    noted = snapshot["run"]
    config = in_this_version(ExperimentConfig.from_dict, noted["config"], snapshot, files.snapshot)
    build.seed_everything(config)
    policy, spec = build.build_policy(config)
    load_policy_state(policy, snapshot)
    session = Session(
        config,
        policy,
        spec,
        files,
        command=noted["command"],
        init_from=noted["init_from"],
        logger=logger,
        callbacks=callbacks,
        show_progress=show_progress,
        snapshot=snapshot,
    )
    return RunResult(files.path, session.execute())


def _python_command(config: ExperimentConfig, init_from: str | os.PathLike[str] | None) -> str:
    """One line of Python that makes the run again; it has no names but those that it imports."""
    start = "" if init_from is None else f", init_from={os.fspath(init_from)!r}"
    return (
        "from fsrl_ext.experiment import ExperimentConfig, run; "
        f"run(ExperimentConfig.from_dict({in_json(config.as_dict())!r}){start})"
    )


def _why_not_resumable(folder: RunFolder) -> str:
    """Why a folder without a snapshot cannot be resumed."""
    path = folder.path
    if not folder.config.is_file():
        return f"{path} is not a run folder"
    if folder.result.is_file() and read_result(path)["status"] == "finished":
        return f"{path} has finished; 'fsrl-ext train ... --init-from {path}' trains its policy further"
    return f"{path} has no snapshot: it was cut off before or within its first selection; start it anew"
