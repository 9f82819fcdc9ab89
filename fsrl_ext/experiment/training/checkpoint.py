"""Complete policies on disk: networks, targets, optimisers, duals, counters, config and versions.

A checkpoint is a plain ``torch.save`` file of tensors, numbers and text with a digest after it, so
``torch.load`` reads it with ``weights_only=True``. Reading here first checks the digest and then the
structure: a file that is damaged, or that was edited into something else, is refused before it is used.
"""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import gymnasium
import numpy as np
import tianshou
import torch
from tianshou.policy import BasePolicy

import fsrl_ext
from fsrl_ext.errors import CheckpointError, NoCheckpointError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.files.archive import Archive, DamagedError, write_archive
from fsrl_ext.experiment.files.content import ForeignObjectError, check_plain, read_content
from fsrl_ext.experiment.files.rules import RULES
from fsrl_ext.experiment.files.sizes import check_sizes, check_spec
from fsrl_ext.experiment.files.state import check_optimiser, check_state, check_tensors
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.report.files import replacing
from fsrl_ext.report.structure import check

Kind = Literal["checkpoint", "snapshot"]
FORMATS: dict[Kind, int] = {"checkpoint": 2, "snapshot": 3}
"""What this version writes: files with a digest."""
WITHOUT_DIGEST: dict[Kind, tuple[int, ...]] = {"checkpoint": (1,), "snapshot": (2,)}
"""What this version reads, too. Checkpoints and snapshots of format 1 are those of fsrl_ext 0.1.0."""
T = TypeVar("T")
_NEWER = frozenset(
    (
        *("agents", "cost_unit", "cost_gamma", "cost_estimation_step", "goal_reward", "recovery_share"),
        *("actor", "critic", "limit_unit", "network", "mean_range", "deterministic_eval"),
        *("action_repeat", "gru_size", "bptt_steps"),
    )
)
"""Settings that came in the middle of this version; its earlier files lack them."""


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {
        "fsrl_ext": fsrl_ext.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "tianshou": tianshou.__version__,
        "gymnasium": gymnasium.__version__,
        "numpy": np.__version__,
    }


def save_checkpoint(
    path: Path,
    policy: BasePolicy,
    *,
    config: ExperimentConfig,
    spec: TaskSpec,
    counters: dict[str, int],
) -> None:
    """Writes a checkpoint in one move: a crash leaves the old file or the new one, never half of one."""
    data = {
        **policy_state(policy),
        "config": config.as_dict(),
        "spec": spec.as_dict(),
        "counters": dict(counters),
    }
    write_checked(path, data, kind="checkpoint")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks a checkpoint file; tensors come to the CPU.

    :raises CheckpointError: if the file is missing, damaged, or not a checkpoint of this library.
    """
    return read_checked(Path(path), kind="checkpoint")


def policy_state(policy: BasePolicy) -> dict[str, Any]:
    """Networks, targets, duals and optimisers, as :func:`restore` takes them."""
    return {
        "policy": policy.state_dict(),
        "optimisers": {name: optim.state_dict() for name, optim in optimisers_of(policy).items()},
    }


def restore(
    policy: BasePolicy, data: Mapping[str, Any], *, optimisers: bool = True, source: Path | None = None
) -> None:
    """Puts a checkpoint's state into a policy of the same shape.

    :param source: the file that the state came from, for the message.
    :raises CheckpointError: if networks or optimisers do not fit; the policy is then unusable.
    """
    try:
        check_state(data["policy"], policy.state_dict())
        policy.load_state_dict(data["policy"])
        if optimisers:
            for name, optim in optimisers_of(policy).items():
                check_optimiser(data["optimisers"].get(name), optim, f"optimisers.{name}")
                optim.load_state_dict(data["optimisers"][name])
    # A policy of another package may raise anything for a state that is not its own.
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise CheckpointError(f"{source or 'the checkpoint'} does not fit the policy: {reason}") from error


def optimisers_of(policy: BasePolicy) -> dict[str, torch.optim.Optimizer]:
    """Every optimiser that the policy holds as an attribute."""
    return {k: v for k, v in vars(policy).items() if isinstance(v, torch.optim.Optimizer)}


def write_checked(path: Path, data: dict[str, Any], *, kind: Kind) -> None:
    """Writes tensors, numbers and text in one move, with format, versions and digest.

    :raises TypeError: for a part that :func:`read_checked` would refuse, naming it; nothing is written.
    """
    content = {f"fsrl_ext_{kind}": FORMATS[kind], **data, "versions": versions()}
    try:
        check_plain(content)
    except DamagedError as error:
        raise TypeError(f"a {kind} cannot hold what it was given: {error}") from error
    with replacing(path) as file:
        write_archive(file, content)


def read_checked(path: Path, *, kind: Kind) -> dict[str, Any]:
    """Reads what :func:`write_checked` wrote.

    :raises CheckpointError: if the file is missing, damaged, edited, of another kind, or of another format.
    """
    if not path.is_file():
        raise NoCheckpointError(f"no {kind} at {path}")
    try:
        with path.open("rb") as file:
            archive = Archive(file)
            data = read_content(archive)
    except ForeignObjectError as error:
        raise CheckpointError(f"{path} {error}") from error
    except (DamagedError, OSError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path} is damaged or not a {kind} ({reason})") from error
    saved = data.get(f"fsrl_ext_{kind}") if isinstance(data, dict) else None
    if saved is None:
        raise CheckpointError(f"{path} is not a {kind} of fsrl_ext")
    versions = data.get("versions")
    writer = versions.get("fsrl_ext") if isinstance(versions, dict) else None
    if type(saved) is not int or type(writer) is not str:
        raise CheckpointError(f"{path} is not a {kind} of fsrl_ext (its format or its versions are missing)")
    if saved not in (FORMATS[kind], *WITHOUT_DIGEST[kind]):
        raise CheckpointError(
            f"{path} was written by fsrl_ext {writer} in {kind} format {saved}, and fsrl_ext "
            f"{fsrl_ext.__version__} reads format {FORMATS[kind]}; fsrl_ext {writer} can "
            f"{'resume' if kind == 'snapshot' else 'load'} it"
        )
    if not archive.has_digest and saved not in WITHOUT_DIGEST[kind]:
        raise CheckpointError(
            f"{path} is damaged or edited (it has no digest, which its format {saved} needs)"
        )
    try:
        check(data, RULES[kind])
        check_tensors({name: data[name] for name in data if name != "run"})
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged or edited: {error}") from error
    return data


def in_this_version(
    parse: Callable[[dict[str, Any]], T], saved: dict[str, Any], data: dict[str, Any], file: Path
) -> T:
    """Returns ``parse(saved)``, where ``saved`` is part of a file's ``data``.

    :raises CheckpointError: if the version that wrote it had other settings, if the settings ask for
        networks that the file's weights cannot be, or if the policy is not registered in this process.
    """
    if "policy" in saved and saved["policy"] not in algorithms():
        raise CheckpointError(
            f"{file} holds the policy {saved['policy']!r}, which is not registered here; install the package "
            "that brings it, or call register_algorithm first"
        )
    writer = data["versions"]["fsrl_ext"]
    try:
        parsed = parse(saved)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{file} was written by fsrl_ext {writer} with settings that this version does not have or allow "
            f"({error})"
        ) from error
    try:
        if isinstance(parsed, ExperimentConfig):
            check_sizes(parsed, data["policy"])
            if data.get("fsrl_ext_checkpoint", 0) != 1 and writer == fsrl_ext.__version__:
                _check_complete(saved, parsed.as_dict())
        elif isinstance(parsed, TaskSpec):
            check_spec(parsed, data["policy"])
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged or edited: {error}") from error
    return parsed


def _check_complete(saved: Mapping[str, Any], complete: Mapping[str, Any]) -> None:
    """Checks that settings were not filled up with defaults: a file of this version has them all.

    :raises ValueError: naming the first setting that is missing.
    """
    for section in ("policy_config", "training"):
        for name in complete[section]:
            if name not in saved[section] and name not in _NEWER:
                raise ValueError(f"config.{section}.{name} is missing")
