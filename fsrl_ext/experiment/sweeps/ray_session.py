"""Starts Ray on this machine or joins a cluster, for the time of a sweep."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsrl_ext.data.ray_actors import knock
from fsrl_ext.experiment.sweeps.plan import Resources
from fsrl_ext.experiment.training.cores import available_cores
from fsrl_ext.experiment.training.lock import locked, trained_by
from fsrl_ext.report.folder import RunFolder

_PREFIX = "fsrl-ext-ray-"
_MAX_PATH = 40
"""Bytes of a temporary folder's path, so that the sockets of Ray below it have paths of at most 107 bytes."""
_OBJECT_STORE = 80 * 2**20
"""Bytes of Ray's store of objects, near its minimum: trials exchange a few numbers."""
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folders have the curves
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a run that is interrupted early has reported nothing
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_kill_child_processes_on_worker_exit": "false",  # they end by themselves, and cleanly
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@contextlib.contextmanager
def ray_session(resources: Resources) -> Iterator[Path]:
    """Lets the block use Ray, and yields a temporary folder for files of Ray and Ray Tune.

    Ray is used as it is if this process has initialised it. Otherwise the cluster at the address is joined,
    or one is started on this machine, quietly, without a dashboard, with its files in the temporary folder.

    :raises ImportError: Ray is not installed.
    :raises ValueError: no cluster is at the address.
    """
    try:
        import ray
        import ray.tune
    except ImportError as error:
        raise ImportError(
            f"a sweep needs Ray Tune, which cannot be imported: pip install 'fsrl_ext[sweep]' ({error})"
        ) from error
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_temporary_folder())
        stack.enter_context(_environment())
        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            with _kept_handlers():  # Ray replaces the one of SIGTERM
                _connect(ray, resources, folder)
        yield folder


def _connect(ray: Any, resources: Resources, folder: Path) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if resources.address is None:
        ray.init(
            "local",
            num_cpus=resources.cores or available_cores(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE,
            _temp_dir=str(folder),
            _plasma_directory=str(folder),
            **quiet,
        )
        return
    try:
        knock(resources.address)
        ray.init(resources.address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"address must be that of a Ray cluster, got {resources.address!r} ({reason})"
        ) from error


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that is removed at the end, and with it those that killed sweeps left behind."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _MAX_PATH - len(_PREFIX):
        parent = "/tmp"
    for left in Path(parent).glob(f"{_PREFIX}*"):
        if (
            os.access(left, os.W_OK)
            and RunFolder(left).lock.is_file()
            and trained_by(RunFolder(left)) is None
        ):
            shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with locked(RunFolder(new)):
            yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Sets Ray's variables for the block where the user has not set them."""
    new = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _kept_handlers() -> Iterator[None]:
    """Resets the handlers of signals to what they were before the block."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    former = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # in another thread than the main one nothing was replaced
            for number, handler in former.items():
                signal.signal(number, handler)
