"""Everything that a training run goes on from: ``checkpoints/resume.pt``.

The first snapshot is taken before the first collect, and the last one when training is over, before the final
evaluation. In between a snapshot is taken about every minute, between two cycles of collect and updates, but
seldom enough that all of them take at most a fiftieth of the time. The file is removed when the run has
finished. Like a checkpoint it is a plain ``torch.save`` file of tensors, numbers and text.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tianshou.policy import BasePolicy

from fsrl_ext.data.randomness import GlobalRandomness
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment.training.checkpoint import policy_state, read_checked, restore, write_checked
from fsrl_ext.experiment.training.folder import write_failure

INTERVAL = 60.0
"""Seconds between two snapshots, at least."""
TIME_SHARE = 0.02
"""Of the time of a run that goes into its snapshots, at most."""


class Snapshots:
    """Takes the snapshots of a run.

    :param path: the file, replaced in one move by every snapshot.
    :param first_at_once: whether the first one is due now; otherwise it is due after :data:`INTERVAL`.
    """

    def __init__(self, path: Path, *, first_at_once: bool) -> None:
        self.path = path
        self._next = 0.0 if first_at_once else time.monotonic() + INTERVAL

    @property
    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() >= self._next

    def take(self, policy: BasePolicy, trainer: Any, run: Callable[[], Mapping[str, Any]]) -> None:
        """Writes a snapshot; a file that cannot be written is a warning, not an error.

        :param trainer: at a selection, or between two cycles.
        :param run: returns what else the run wants to find again: plain numbers, text and bytes.
        """
        # The trainer may wait here for a collect that is under way. It would wait for it anyway.
        training = trainer.state_dict()
        begun = time.monotonic()
        content = plain(
            {
                **policy_state(policy),
                "trainer": training,
                "randomness": GlobalRandomness().state_dict(),
                "run": dict(run()),
            }
        )
        try:
            write_checked(self.path, content, kind="snapshot")
        except (OSError, RuntimeError) as error:  # torch raises its own for a disk that is full
            warnings.warn(
                f"no snapshot at {self.path} ({write_failure(error)}); the run goes on", stacklevel=2
            )
        ended = time.monotonic()
        self._next = ended + max(INTERVAL, (ended - begun) / TIME_SHARE)

    def discard(self) -> None:
        """Removes the file: the run has finished."""
        self.path.unlink(missing_ok=True)


def read_snapshot(path: Path) -> dict[str, Any]:
    """A snapshot's content.

    :raises CheckpointError: if there is none, it is damaged, or another version wrote it in another format.
    """
    snapshot = restored(read_checked(path, kind="snapshot"))
    if "logger" not in snapshot["run"]:
        raise CheckpointError(f"{path} does not say which rows of progress.csv belong to it")
    return snapshot


def load_policy_state(policy: BasePolicy, snapshot: Mapping[str, Any]) -> None:
    """Puts networks, optimisers and what else learning depends on into a policy of the same shape."""
    restore(policy, dict(snapshot))


def load_run_state(trainer: Any, snapshot: Mapping[str, Any]) -> bool:
    """Loads the state of the trainer and of the random numbers, as the last thing before a run goes on.

    :return: whether the environments are where they were.
    :raises CheckpointError: if the state does not fit the trainer or the generators.
    """
    try:
        exact = trainer.load_state_dict(snapshot["trainer"])
        GlobalRandomness().load_state_dict(snapshot["randomness"])
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the snapshot does not fit the run ({type(error).__name__}: {reason})"
        ) from error
    return exact


_ARRAY = "numpy array"


def plain(value: Any) -> Any:
    """The value with tensors for NumPy's arrays, marked as such, and Python's numbers for NumPy's.

    :raises TypeError: for anything but numbers, text, bytes, tensors, arrays and collections of them.
    """
    if isinstance(value, np.generic):  # some of which are Python's floats, too
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | bytes | torch.Tensor):
        return value
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.ascontiguousarray(value)), "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(entry) for entry in value)
    raise TypeError(f"a snapshot cannot hold a {type(value).__name__}")


def restored(value: Any) -> Any:
    """The inverse of :func:`plain`, but for NumPy's numbers."""
    if isinstance(value, dict):
        if _ARRAY in value:
            return value[_ARRAY].numpy().reshape(value["shape"])
        return {key: restored(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(restored(entry) for entry in value)
    return value
