"""Calling the environments of a vector, whether they have processes or share some, and closing them.

Dimension: ``R`` environments that are called.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import gymnasium as gym
import numpy as np
from tianshou.env import BaseVectorEnv, DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv, VectorEnvWrapper
from tianshou.env.worker import DummyEnvWorker, EnvWorker, SubprocEnvWorker

from fsrl_ext.data.env_groups import (
    EnvFn,
    EnvGroup,
    GroupedVectorEnv,
    GroupedWorker,
    LocalGroup,
    split_evenly,
)
from fsrl_ext.data.errors import ProcessEndedError
from fsrl_ext.data.worker_env import FAILURE, WorkerEnvFn
from fsrl_ext.errors import check_reset, check_step

CLOSE_SECONDS = 10.0
"""Seconds that the processes of a vector have to close their environments before they are terminated."""


PLAIN_VECTORS = (DummyVectorEnv, SubprocVectorEnv, ShmemVectorEnv)
_ENDED = object()
# What has one pipe: the process of an environment, or that of a group of environments.
_Process = SubprocEnvWorker | EnvGroup


class EnvWorkers:
    """Calls the environments of a vector, all of them at once if they are processes.

    An exception of an environment is raised as it is, with a note that names the environment. The other
    answers of the call are read before, so the next call gets its own answers. A process that has ended, or
    whose answer nobody has read because Ctrl-C came in between, is replaced by a new one at its next reset.

    :param venv: the vector, maybe in wrappers.
    :raises ValueError: two environments are one object.
    """

    def __init__(self, venv: BaseVectorEnv) -> None:
        inner = venv
        while isinstance(inner, VectorEnvWrapper):
            inner = inner.venv
        self._inner = inner
        self.workers: list[EnvWorker] = getattr(inner, "workers", [])
        self.can_call = type(venv) in (*PLAIN_VECTORS, GroupedVectorEnv)
        """Whether :meth:`step` and :meth:`reset` do what the vector does, without wrappers."""
        self._in_process = type(inner) is DummyVectorEnv
        self._lost: set[int] = set()
        """Environments that must be reset before they step."""
        self._broken: set[int] = set()
        """Environments whose process has ended or owes an answer."""
        groups = [worker.group if isinstance(worker, GroupedWorker) else worker for worker in self.workers]
        self._mates = [[i for i, other in enumerate(groups) if other is group] for group in groups]
        """By environment those with the same process, itself included."""
        self._check_different()

    def _check_different(self) -> None:
        """:raises ValueError: two environments are one object."""
        seen: dict[int, int] = {}
        for i, worker in enumerate(self.workers):
            if isinstance(worker, DummyEnvWorker):
                first = seen.setdefault(id(getattr(worker.env, "unwrapped", worker.env)), i)
                if first != i:
                    raise ValueError(
                        f"env must hold different environments, but environments {first} and {i} are one "
                        "object: let each function of the vector build an environment of its own"
                    )

    def step(self, ids: Sequence[int], actions: Any) -> list[tuple]:
        """Step the environments ``ids [R]``.

        :param actions: ``[R, ...]``; an environment may change its own.
        :return: ``R`` five-tuples.
        :raises ProcessEndedError: the process of an environment has ended.
        :raises ValueError: an environment returned something else than five values with a dictionary.
        """
        if self._in_process:
            answers: list[tuple] = []
            try:
                for i, action in zip(ids, actions, strict=True):
                    answer = self.workers[i].env.step(action)  # type: ignore[attr-defined]
                    if type(answer) is not tuple or len(answer) != 5 or type(answer[4]) is not dict:
                        check_step(answer)
                    # Copies, because the step of the next environment may change what both share.
                    answers.append((_copied(answer[0]), *answer[1:4], _copied_info(answer[4])))
            except Exception as error:
                error.add_note(_note(ids[len(answers)]))
                raise
            return answers
        return self._exchange("step", ids, list(actions), check_step)

    def reset(self, ids: Sequence[int], arguments: Sequence[Mapping[str, Any]]) -> list[tuple]:
        """Reset the environments ``ids [R]``.

        :param arguments: ``R`` dictionaries of keyword arguments.
        :return: ``R`` pairs of observation and info.
        :raises ProcessEndedError: the process of an environment has ended.
        :raises ValueError: an environment returned something else than an observation and a dictionary.
        """
        self.renew(ids)
        if self._in_process:
            answers: list[tuple] = []
            try:
                for i, kwargs in zip(ids, arguments, strict=True):
                    answer = self.workers[i].env.reset(**kwargs)  # type: ignore[attr-defined]
                    check_reset(answer)
                    answers.append((_copied(answer[0]), answer[1]))
            except Exception as error:
                error.add_note(_note(ids[len(answers)]))
                raise
            return answers
        return self._exchange("reset", ids, list(arguments), check_reset)

    def lose(self, ids: Sequence[int]) -> None:
        """Note that somebody else's call of the environments failed, so that they may owe answers."""
        self._break(i for i in ids if _is_process(self.workers[i]))

    def _break(self, ids: Iterable[int]) -> None:
        """Note that the processes of the environments have ended or owe answers."""
        for i in ids:
            self._broken.update(self._mates[i])
            self._lost.update(self._mates[i])

    def renew(self, ids: Sequence[int]) -> None:
        """Replace the processes of those among ``ids`` that have ended or owe answers by new ones.

        The other environments of such a process have to be reset as well before they step.
        """
        renewed = sorted(self._lost.intersection(ids))
        close_workers([self.workers[i] for i in renewed if i in self._broken], wait=0.0)
        for i in renewed:
            if i in self._broken:
                self._replace(i)
        self._lost.difference_update(renewed)

    def _replace(self, i: int) -> None:
        """Start a new process in place of the one of environment ``i``, which is closed."""
        worker, mates = self.workers[i], self._mates[i]
        if isinstance(worker, GroupedWorker):
            old = worker.group
            group: EnvGroup | LocalGroup
            if isinstance(old, LocalGroup):
                group = LocalGroup(old.env_fns)
            else:
                group = _build_group(old.env_fns, mates[0], old.method)
            for mate in mates:
                self.workers[mate].group = group  # type: ignore[attr-defined]
            self._lost.update(mates)
        else:
            self.workers[i] = _successor(worker, i)
        self._broken.difference_update(mates)

    @property
    def closed(self) -> bool:
        """Whether the innermost vector has been closed as a whole, by whomever."""
        return getattr(self._inner, "is_closed", False)

    def close(self) -> None:
        """Close all environments, end their processes and give back what the processes used."""
        close_workers(self.workers)

    def _exchange(
        self, name: str, ids: Sequence[int], arguments: Sequence[Any], check: Callable[[Any], None]
    ) -> list[tuple]:
        """Send the calls to the processes, one message to each, read all answers, and check them.

        :param name: ``"step"`` or ``"reset"``.
        :param arguments: ``R`` actions, or ``R`` dictionaries of keyword arguments.
        """
        owing = self._lost.intersection(ids)
        if owing:
            raise ProcessEndedError(f"environments {sorted(owing)} must be reset before they step")
        # By the first environment of a process the rows of the call that are the process's
        shares: dict[int, list[int]] = {}
        for row, i in enumerate(ids):
            shares.setdefault(self._mates[i][0], []).append(row)
        waiting = set(self._lost)
        self._break(shares)  # Until the answers have been read
        for first, rows in shares.items():
            with contextlib.suppress(OSError):  # The process has ended; that no answer comes says so below.
                self._send(self.workers[first], name, [(ids[row], arguments[row]) for row in rows])
        answers: list[Any] = [_ENDED] * len(ids)
        # This process's own share comes first: the others compute meanwhile.
        for first, rows in sorted(shares.items(), key=lambda share: not self._is_local(share[0])):
            worker = self.workers[first]
            try:
                share = worker.group.receive() if isinstance(worker, GroupedWorker) else [worker.recv()]
            except (EOFError, OSError):
                continue
            for row, answer in zip(rows, share, strict=True):
                answers[row] = answer
            self._broken.difference_update(self._mates[first])
            self._lost.difference_update(i for i in self._mates[first] if i not in waiting)
        for i, answer in zip(ids, answers, strict=True):
            if answer is _ENDED:
                raise ProcessEndedError(_ended(self.workers[i], self._mates[i]))
            try:
                check(answer)
            except ValueError as error:
                error.add_note(_note(i))
                raise
        raise_failures(ids, [answer[-1] for answer in answers])
        return answers

    def _is_local(self, i: int) -> bool:
        worker = self.workers[i]
        return isinstance(worker, GroupedWorker) and isinstance(worker.group, LocalGroup)

    def _send(self, worker: EnvWorker, name: str, calls: Sequence[tuple[int, Any]]) -> None:
        """Send calls of environments, each with its number, to the process that has them all."""
        if isinstance(worker, GroupedWorker):
            places = [self._mates[i].index(i) for i, _ in calls]
            worker.group.send(name, places, [argument for _, argument in calls])
        elif name == "step":
            worker.send(calls[0][1])
        else:
            worker.send(None, **calls[0][1])


def raise_failures(ids: Sequence[int], infos: Sequence[Any]) -> None:
    """Raise the first exception with which a :class:`SeededProcess` among the environments ``ids`` answered.

    :param infos: ``R`` infos of one call.
    """
    for i, info in zip(ids, infos, strict=True):
        if FAILURE in info:
            info[FAILURE].raise_here(_note(i))


def build_vector(kind: type[BaseVectorEnv], env_fns: Sequence[Callable[[], gym.Env]]) -> BaseVectorEnv:
    """Build a vector of environments; if one of them cannot be built, close those that were built before.

    :param kind: ``DummyVectorEnv``, ``SubprocVectorEnv`` or ``ShmemVectorEnv``; others build as they do.
    :raises ProcessEndedError: the process of an environment ended while it built the environment.
    """
    if kind not in PLAIN_VECTORS:
        return kind(env_fns)  # type: ignore[call-arg]
    in_process = kind is DummyVectorEnv
    settings = {} if in_process else {"share_memory": kind is ShmemVectorEnv}
    workers: list[EnvWorker] = []

    def add_worker(env_fn: Callable[[], gym.Env]) -> EnvWorker:
        worker_class = DummyEnvWorker if in_process else SubprocEnvWorker
        workers.append(_build_worker(worker_class, env_fn, len(workers), **settings))
        return workers[-1]

    vector = kind.__new__(kind)
    try:
        BaseVectorEnv.__init__(vector, env_fns, add_worker)
    except BaseException:
        close_workers(workers, wait=1.0)
        raise
    return vector


def build_grouped_vector(
    make_env: EnvFn, num_envs: int, processes: int, *, own_share: bool = False
) -> BaseVectorEnv:
    """Build a vector of environments that are served by some processes.

    :param processes: other processes, at least 1.
    :param own_share: whether the calling process steps a share of the environments, too.
    :raises ProcessEndedError: a process ended while it built an environment.
    """
    groups: list[EnvGroup | LocalGroup] = []
    shares = split_evenly([make_env] * num_envs, min(processes + own_share, num_envs))
    try:
        if own_share:
            groups.append(LocalGroup(shares[0]))
        first = len(shares[0]) if own_share else 0
        for env_fns in shares[int(own_share) :]:
            groups.append(_build_group([WorkerEnvFn(fn) for fn in env_fns], first))
            first += len(env_fns)
        return GroupedVectorEnv(groups)
    except BaseException:
        _close_groups(groups, wait=1.0)
        raise


def _close_groups(groups: Sequence[EnvGroup | LocalGroup], wait: float) -> None:
    for group in groups:
        if isinstance(group, LocalGroup):
            group.close()
    _end_processes([group for group in groups if isinstance(group, EnvGroup)], wait)


def _build_group(env_fns: Sequence[EnvFn], first: int, method: str | None = None) -> EnvGroup:
    """Start the process of a group; if that fails, give back what its constructor has taken.

    :param first: the number of the group's first environment, which error messages name.
    """
    group = EnvGroup.__new__(EnvGroup)
    group.is_closed = False
    try:
        group.__init__(env_fns, method)  # type: ignore[misc]
    except BaseException as error:
        mates = range(first, first + len(env_fns))
        ended = _ended(group, mates) if isinstance(error, EOFError | ConnectionError) else None
        _end_processes([group], wait=0.0)
        if ended is not None:
            raise ProcessEndedError(ended) from error
        error.add_note(f"raised by the process of {_named(mates)} while it built them")
        raise
    return group


def _build_worker(
    worker_class: type[EnvWorker], env_fn: Callable[[], gym.Env], i: int, **settings: Any
) -> EnvWorker:
    """Build the worker of environment ``i``; if that fails, give back what its constructor has taken."""
    worker = worker_class.__new__(worker_class)
    worker.is_closed = False
    try:
        worker.__init__(env_fn, **settings)  # type: ignore[misc]
    except BaseException as error:
        ended = _ended(worker, [i]) if isinstance(error, EOFError | ConnectionError) else None
        close_workers([worker], wait=0.0)
        if ended is not None:
            raise ProcessEndedError(ended) from error
        error.add_note(f"raised while environment {i} was built")
        raise
    return worker


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
    _end_processes(list(processes.values()), wait)
    if errors:
        raise errors[0]


def _end_processes(processes: Sequence[_Process], wait: float) -> None:
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


def _ended(worker: EnvWorker | EnvGroup, mates: Sequence[int]) -> str:
    """Say that the process of the environments ``mates`` has ended, and how."""
    process = cast(Any, worker).process
    process.join(timeout=5.0)
    code = process.exitcode
    how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"the process of {_named(mates)} has ended ({how}); an exception in it has printed its traceback"


def _named(mates: Sequence[int]) -> str:
    return f"environment {mates[0]}" if len(mates) == 1 else f"environments {mates[0]} to {mates[-1]}"


def _successor(worker: EnvWorker, i: int) -> EnvWorker:
    """Start a new process for environment ``i``, whose worker was closed."""
    assert isinstance(worker, SubprocEnvWorker)
    method = getattr(worker.process, "_start_method", None)
    settings = {"share_memory": worker.share_memory, "context": method}
    return _build_worker(SubprocEnvWorker, worker._env_fn, i, **settings)


def _is_process(worker: EnvWorker) -> bool:
    return isinstance(worker, SubprocEnvWorker | GroupedWorker)


def _copied(value: Any) -> Any:
    return value.copy() if type(value) is np.ndarray else deepcopy(value)


def _copied_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Copy an info whose cost may be an array."""
    copied = dict(info)
    if type(copied.get("cost")) in (np.ndarray, list):
        copied["cost"] = copied["cost"].copy()
    return copied


def _note(i: int) -> str:
    return f"raised by environment {i} of the collector"
