"""Closing the environments of a vector, and ending their processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from tianshou.env.worker import DummyEnvWorker, EnvWorker, SubprocEnvWorker

from fsrl_ext.data.env_groups import EnvGroup, GroupedWorker, LocalGroup

CLOSE_SECONDS = 10.0
"""Seconds that the processes of a vector have to close their environments before they are terminated."""

# What has one pipe: the process of an environment, or that of a group of environments.
_Process = SubprocEnvWorker | EnvGroup


def close_workers(workers: Sequence[EnvWorker], wait: float = CLOSE_SECONDS) -> None:
    """Close environments, and give back the processes, pipes and memory of those that are processes.

    Tianshou's own ``close`` keeps pipes and the handles of processes open until the garbage is collected,
    and waits without end for a process that is busy or whose answer nobody has read.

    :param wait: seconds that the processes have, all together, before they are terminated.
    """
    errors: list[Exception] = []
    processes: dict[int, _Process] = {}
    for worker in workers:
        process = worker.group if isinstance(worker, GroupedWorker) else worker
        if isinstance(process, SubprocEnvWorker | EnvGroup):
            processes[id(process)] = process
        elif isinstance(process, LocalGroup):
            try:
                process.close()
            except Exception as error:  # of any kind: the other environments are closed before it is raised
                errors.append(error)
        elif not isinstance(worker, DummyEnvWorker) or hasattr(worker, "env"):
            try:
                worker.close()
            except Exception as error:  # of any kind: the other environments are closed before it is raised
                errors.append(error)
    end_processes(list(processes.values()), wait)
    if errors:
        raise errors[0]


def close_groups(groups: Sequence[EnvGroup | LocalGroup], wait: float) -> None:
    for group in groups:
        if isinstance(group, LocalGroup):
            group.close()
    end_processes([group for group in groups if isinstance(group, EnvGroup)], wait)


def end_processes(processes: Sequence[_Process], wait: float) -> None:
    """Let processes close their environments, and give back what the processes used.

    :param wait: seconds that the processes have, all together, before they are terminated.
    """
    ending = [x for x in processes if not x.is_closed]
    try:
        for process in ending:
            process.is_closed = True
            if wait > 0:
                _say_close(process)
        deadline = time.monotonic() + wait
        for process in ending:
            _read_until_end(process, deadline)
    finally:
        for process in ending:
            _give_back(process)


def _say_close(worker: _Process) -> None:
    try:
        worker.parent_remote.send(["close", None])
    except OSError:  # the process has ended already
        return


def _read_until_end(worker: _Process, deadline: float) -> None:
    """Read answers that nobody has read, which the process may wait for, until it has closed its end."""
    if getattr(worker, "process", None) is None:
        return
    try:
        while worker.parent_remote.poll(max(deadline - time.monotonic(), 0.0)):
            worker.parent_remote.recv_bytes()
    except (EOFError, OSError):
        worker.process.join(max(deadline - time.monotonic(), 0.0))


def _give_back(worker: _Process) -> None:
    """End the process and close what it used; the worker's constructor may have failed half-way."""
    process = getattr(worker, "process", None)
    if process is not None:
        if process.is_alive():
            process.terminate()
            process.join(1.0)
            if process.is_alive():
                process.kill()
                process.join()
        process.close()
    for name in ("parent_remote", "child_remote"):
        if hasattr(worker, name):
            getattr(worker, name).close()
    if isinstance(worker, SubprocEnvWorker):
        worker.buffer = None


def how_ended(worker: EnvWorker | EnvGroup, mates: Sequence[int]) -> str:
    """Say that the process of the environments ``mates`` has ended, and how."""
    process = cast(Any, worker).process
    process.join(timeout=5.0)
    code = process.exitcode
    how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"the process of {named(mates)} has ended ({how}); an exception in it has printed its traceback"


def named(mates: Sequence[int]) -> str:
    return f"environment {mates[0]}" if len(mates) == 1 else f"environments {mates[0]} to {mates[-1]}"
