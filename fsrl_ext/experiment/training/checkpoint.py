"""Complete policies on disk: networks, targets, optimisers, duals, counters, config and versions.

A checkpoint is a plain ``torch.save`` file of tensors, numbers and text, so ``torch.load`` reads it with
``weights_only=True``. Loading first checks the file's own checksums: a damaged file is refused.
"""

from __future__ import annotations

import os
import pickle
import platform
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import gymnasium
import numpy as np
import tianshou
import torch
from tianshou.policy import BasePolicy

import fsrl_ext
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.report.files import replacing

Kind = Literal["checkpoint", "snapshot"]
FORMATS: dict[Kind, int] = {"checkpoint": 1, "snapshot": 2}
"""What this version writes and reads. Snapshots of format 1 are those of fsrl_ext 0.1.0."""
T = TypeVar("T")


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


def restore(policy: BasePolicy, data: dict[str, Any], *, optimisers: bool = True) -> None:
    """Puts a checkpoint's state into a policy of the same shape.

    :raises CheckpointError: if networks or optimisers do not fit; the policy is then unusable.
    """
    try:
        policy.load_state_dict(data["policy"])
        if optimisers:
            for name, optim in optimisers_of(policy).items():
                optim.load_state_dict(data["optimisers"][name])
    except (RuntimeError, KeyError, ValueError) as error:
        first = str(error).strip().splitlines()
        raise CheckpointError(f"the checkpoint does not fit the policy: {' '.join(first[:2])}") from error


def optimisers_of(policy: BasePolicy) -> dict[str, torch.optim.Optimizer]:
    """Every optimiser that the policy holds as an attribute."""
    return {k: v for k, v in vars(policy).items() if isinstance(v, torch.optim.Optimizer)}


def write_checked(path: Path, data: dict[str, Any], *, kind: Kind) -> None:
    """Writes tensors, numbers and text in one move, with format and versions."""
    with replacing(path) as file:
        torch.save({f"fsrl_ext_{kind}": FORMATS[kind], **data, "versions": versions()}, file)


def read_checked(path: Path, *, kind: Kind) -> dict[str, Any]:
    """Reads what :func:`write_checked` wrote.

    :raises CheckpointError: if the file is missing, damaged, of another kind, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"no {kind} at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged (checksum of {damaged} is wrong)")
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        NotImplementedError,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is damaged or not a {kind} ({reason})") from error
    saved, expected = data.get(f"fsrl_ext_{kind}") if isinstance(data, dict) else None, FORMATS[kind]
    if saved is None:
        raise CheckpointError(f"{path} is not a {kind} of fsrl_ext")
    if saved != expected:
        writer = f"fsrl_ext {data['versions']['fsrl_ext']}"
        raise CheckpointError(
            f"{path} was written by {writer} in {kind} format {saved}, and fsrl_ext {fsrl_ext.__version__} "
            f"reads format {expected}; {writer} can {'resume' if kind == 'snapshot' else 'load'} it"
        )
    return data


def in_this_version(
    parse: Callable[[dict[str, Any]], T], saved: dict[str, Any], data: dict[str, Any], file: Path
) -> T:
    """Returns ``parse(saved)``, where ``saved`` is part of a file's ``data``.

    :raises CheckpointError: if the version that wrote it had other settings, or if the policy is not
        registered in this process.
    """
    if "policy" in saved and saved["policy"] not in algorithms():
        raise CheckpointError(
            f"{file} holds the policy {saved['policy']!r}, which is not registered here; install the package "
            "that brings it, or call register_algorithm first"
        )
    try:
        return parse(saved)
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{file} was written by fsrl_ext {data['versions']['fsrl_ext']} with settings that this version "
            f"does not have ({error})"
        ) from error
