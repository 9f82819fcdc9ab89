"""Training runs: from a config to a run folder, and from a folder that was cut off to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tianshou.policy import BasePolicy
from tianshou.utils import BaseLogger

from fsrl_ext.errors import CheckpointError, RunFolderError, checked
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.training import build
from fsrl_ext.experiment.training.callbacks import check_callbacks
from fsrl_ext.experiment.training.checkpoint import in_this_version, versions
from fsrl_ext.experiment.training.cores import resolve_cores, warn_of_more_processes_than_cores
from fsrl_ext.experiment.training.folder import (
    empty_run_folder,
    has_finished,
    new_run_folder,
    remove_leftovers,
    writing,
)
from fsrl_ext.experiment.training.lock import locked
from fsrl_ext.experiment.training.machine import check_machine
from fsrl_ext.experiment.training.permission import check_import, check_networks, resume_command
from fsrl_ext.experiment.training.session import Session
from fsrl_ext.experiment.training.snapshot import load_policy_state, read_snapshot
from fsrl_ext.experiment.training.warm_start import start_from
from fsrl_ext.report.files import in_json, write_json
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.links import check_links
from fsrl_ext.report.records import NOTED, read_record


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
        return self.status != "finished"


@checked(at_least_one=("cores",), own=("callbacks",))
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
    cores: int | None = None,
) -> RunResult:
    """Trains a policy and judges it.

    The run folder holds ``config.json``, ``progress.csv``, TensorBoard events, ``checkpoints/best.pt`` and
    ``last.pt``, ``result.json`` and ``curves.png``. A keyboard interrupt ends training or the final
    evaluation early and cleanly; :func:`resume` goes on with it. From the moment that the folder has its
    ``config.json``, :func:`resume` also goes on with a run that was killed.

    .. code-block:: python

        run(config, logger=WandbLogger(project="safety", update_interval=1), callbacks=[MyCallback()])

    :param out: the run folder's parent.
    :param run_name: the run folder's name; a fresh one with a counter if not given.
    :param command: the command line to note in the result; Python code that makes the same run if not given.
    :param init_from: a run folder (its best policy), a checkpoint file or ``zoo:NAME``, whose networks,
        target networks, multipliers and optimiser moments the policy starts with (a policy of the zoo has no
        moments). Settings are the config's, learning rates and cost limits too, and counters start from zero;
        there is no warm-up with random actions.
    :param logger: a Tianshou logger of your own, beside the one that writes the run folder: it is given the
        same data over environment steps, writes at its own intervals, and is finalized at the end. A
        ``WandbLogger`` without a writer gets that of the run folder.
    :param callbacks: objects with any of the methods of :class:`~fsrl_ext.experiment.RunCallback`.
    :param cores: processor cores that the run uses, >= 1; those that are available to this process if not
        given. They change no number of the run. ``threads`` of the config are PyTorch's threads.
    :raises CheckpointError: if ``init_from`` is unusable or does not fit; nothing is written then.
    :raises ValueError: for a config or a callback that cannot be used; nothing is written then.
    :raises NonFiniteError: if an environment or a loss gives NaN; the last good policy is saved before.
    :raises RunStoppedError: if a file cannot be written, or a process of the run has ended.

    Every error of the training has a note that says what was saved and how to go on.
    """
    callbacks = check_callbacks(callbacks)
    check_machine(config)
    cores = resolve_cores(cores, config)
    warn_of_more_processes_than_cores(cores, config)
    build.seed_everything(config)
    policy, spec = build.build_policy(config)
    build.check_effects(config, spec)
    config = dataclasses.replace(config, costs=spec.cost_names)  # those of a task that names its costs, too
    origin = None if init_from is None else start_from(policy, config, init_from)
    folder = new_run_folder(Path(out), config, run_name)
    command = command or _python_command(config, init_from)
    noted = {"command": command, **({} if origin is None else {"init_from": origin})}
    with locked(folder), _saying_how_to_go_on(folder, allow_import=config.imports_modules):
        with writing(folder.config):
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
            cores=cores,
        )
        return RunResult(folder.path, session.execute())


@checked(at_least_one=("cores",), own=("callbacks",))
def resume(
    folder: str | os.PathLike[str],
    *,
    show_progress: bool = True,
    logger: BaseLogger | None = None,
    callbacks: Sequence[Any] = (),
    allow_import: bool = False,
    cores: int | None = None,
) -> RunResult:
    """Goes on with a run that was interrupted, killed or cut off, from its last snapshot.

    What was logged after the snapshot is logged again. A run that was cut off before its first snapshot
    begins again in its folder, and one that was cut off in the final evaluation repeats the evaluation. In
    deterministic environments, with the same versions on the same machine, the run ends as if nothing had
    happened, bit for bit. Where the environments do not repeat themselves, a warning says so and new episodes
    begin. ``result.json`` notes each time under ``resumed``.

    :param folder: the run folder.
    :param logger: as for :func:`run`; the snapshot keeps none.
    :param callbacks: as for :func:`run`; the snapshot keeps none.
    :param allow_import: whether the module of a task ``"module:id"``, and of networks of the user's, may be
        imported, which runs its code.
    :param cores: as for :func:`run`; the run may have begun with another number.
    :raises RunFolderError: if the run has finished, the folder is no run folder or cannot be written, it has
        policies but no snapshot, a link is among its files, or a process is training the run.
    :raises CheckpointError: if the snapshot is damaged, or from a version that saved other things, or if a
        module would be imported without permission.
    :raises NonFiniteError: as for :func:`run`.
    :raises RunStoppedError: as for :func:`run`.
    """
    callbacks = check_callbacks(callbacks)
    files = RunFolder(Path(folder))
    if not files.config.is_file() and not files.snapshot.is_file():
        raise RunFolderError(f"{files.path} is not a run folder: it has no {files.config.name}")
    check_links(files)
    with locked(files), _saying_how_to_go_on(files, allow_import=allow_import):
        remove_leftovers(files)
        snapshot = None
        if files.snapshot.is_file():
            snapshot = read_snapshot(files.snapshot)
            _warn_of_other_versions(snapshot)
            noted = snapshot["run"]
            config = in_this_version(ExperimentConfig.from_dict, noted["config"], snapshot, files.snapshot)
        else:
            if has_finished(files):
                raise RunFolderError(
                    f"{files.path} has finished; 'fsrl-ext train ... --init-from {files.path}' trains its "
                    "policy further"
                )
            if files.best.exists() or files.last.exists():
                raise RunFolderError(
                    f"{files.path} has policies but no snapshot to go on from; 'fsrl-ext train ... "
                    f"--init-from {files.path}' trains its policy further"
                )
            config, noted = _read_config(files)
        source = files.config if snapshot is None else files.snapshot
        check_import(config.env_id, source, allow_import=allow_import)
        check_networks(config.training, source, allow_import=allow_import)
        check_machine(config, resumed=True)
        cores = resolve_cores(cores, config)
        warn_of_more_processes_than_cores(cores, config)
        build.seed_everything(config)
        policy, spec = build.build_policy(config)
        if snapshot is not None:
            load_policy_state(policy, snapshot)
        else:
            if noted["init_from"] is not None:
                _start_from_the_same(policy, config, noted["init_from"])
            empty_run_folder(files)
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
            cores=cores,
            snapshot=snapshot,
            again=snapshot is None,
        )
        return RunResult(files.path, session.execute())


def _warn_of_other_versions(snapshot: dict[str, Any]) -> None:
    here, there = versions(), snapshot["versions"]
    for name in (x for x in here if here[x] != there.get(x)):
        warnings.warn(f"the run began with {name} {there.get(name)}, here it is {here[name]}", stacklevel=3)


def _read_config(folder: RunFolder) -> tuple[ExperimentConfig, dict[str, Any]]:
    """The settings in ``config.json``, and what else it notes: ``command`` and ``init_from``.

    :raises RunFolderError: if the file is damaged, or has settings that this version does not have.
    """
    data = read_record(folder.config, NOTED)
    noted = {"command": data.pop("command"), "init_from": data.pop("init_from", None)}
    try:
        return ExperimentConfig.from_dict(data), noted
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise RunFolderError(f"{folder.config} cannot be used ({type(error).__name__}: {reason})") from error


def _start_from_the_same(policy: BasePolicy, config: ExperimentConfig, noted: dict[str, Any]) -> None:
    """Lets a policy start from the checkpoint that a run noted as its origin.

    :raises CheckpointError: if the checkpoint is gone, or is another one now.
    """
    origin = start_from(policy, config, noted["checkpoint"])
    if origin["sha256"] != noted["sha256"]:
        raise CheckpointError(f"{noted['checkpoint']} has changed since the run began from it")


@contextlib.contextmanager
def _saying_how_to_go_on(folder: RunFolder, *, allow_import: bool) -> Iterator[None]:
    """Notes the way to go on in a keyboard interrupt that found no training to end."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if folder.config.is_file() and not has_finished(folder):
            interrupt.add_note(f"to go on: {resume_command(folder.path, allow_import=allow_import)}")
        raise


def _python_command(config: ExperimentConfig, init_from: str | os.PathLike[str] | None) -> str:
    """One line of Python that makes the run again; it has no names but those that it imports."""
    start = "" if init_from is None else f", init_from={os.fspath(init_from)!r}"
    return (
        "from fsrl_ext.experiment import ExperimentConfig, run; "
        f"run(ExperimentConfig.from_dict({in_json(config.as_dict())!r}){start})"
    )
