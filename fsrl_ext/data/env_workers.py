"""Calling the environments of a vector, one worker each, and closing them.

Dimension: ``R`` environments that are called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from tianshou.env import BaseVectorEnv, DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv, VectorEnvWrapper
from tianshou.env.worker import DummyEnvWorker, EnvWorker, SubprocEnvWorker

from fsrl_ext.data.errors import ProcessEndedError
from fsrl_ext.data.worker_env import FAILURE
from fsrl_ext.errors import check_reset, check_step

CLOSE_SECONDS = 10.0
"""Seconds that the processes of a vector have to close their environments before they are terminated."""


PLAIN_VECTORS = (DummyVectorEnv, SubprocVectorEnv, ShmemVectorEnv)
_ENDED = object()


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
        self.can_call = type(venv) in PLAIN_VECTORS
        """Whether :meth:`step` and :meth:`reset` do what the vector does, without wrappers."""
        self._in_process = type(inner) is DummyVectorEnv
        self._lost: set[int] = set()
        """Environments whose process has ended or owes an answer."""
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
        return self._exchange(ids, [((action,), {}) for action in actions], check_step)

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
        return self._exchange(ids, [((None,), kwargs) for kwargs in arguments], check_reset)

    def lose(self, ids: Sequence[int]) -> None:
        """Note that somebody else's call of the environments failed, so that they may owe answers."""
        self._lost.update(i for i in ids if _is_process(self.workers[i]))

    def renew(self, ids: Sequence[int]) -> None:
        """Replace the processes among ``ids`` that have ended or owe answers by new ones."""
        renewed = sorted(self._lost.intersection(ids))
        close_workers([self.workers[i] for i in renewed], wait=0.0)
        for i in renewed:
            self.workers[i] = _successor(self.workers[i], i)
            self._lost.discard(i)

    @property
    def closed(self) -> bool:
        """Whether the innermost vector has been closed as a whole, by whomever."""
        return getattr(self._inner, "is_closed", False)

    def close(self) -> None:
        """Close all environments, end their processes and give back what the processes used."""
        close_workers(self.workers)

    def _exchange(
        self, ids: Sequence[int], calls: Sequence[tuple], check: Callable[[Any], None]
    ) -> list[tuple]:
        """Send a call to each of the processes, read all answers, and check them."""
        owing = self._lost.intersection(ids)
        if owing:
            raise ProcessEndedError(f"environments {sorted(owing)} must be reset before they step")
        self._lost.update(ids)  # Until its answer has been read
        for i, (arguments, kwargs) in zip(ids, calls, strict=True):
            try:
                self.workers[i].send(*arguments, **kwargs)
            except OSError:  # The process has ended; that no answer comes says so below.
                continue
        answers: list[Any] = []
        for i in ids:
            try:
                answers.append(self.workers[i].recv())
            except (EOFError, OSError):
                answers.append(_ENDED)
                continue
            self._lost.discard(i)
        for i, answer in zip(ids, answers, strict=True):
            if answer is _ENDED:
                raise ProcessEndedError(_ended(self.workers[i], i))
            try:
                check(answer)
            except ValueError as error:
                error.add_note(_note(i))
                raise
        raise_failures(ids, [answer[-1] for answer in answers])
        return answers


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


def _build_worker(
    worker_class: type[EnvWorker], env_fn: Callable[[], gym.Env], i: int, **settings: Any
) -> EnvWorker:
    """Build the worker of environment ``i``; if that fails, give back what its constructor has taken."""
    worker = worker_class.__new__(worker_class)
    worker.is_closed = False
    try:
        worker.__init__(env_fn, **settings)  # type: ignore[misc]
    except BaseException as error:
        ended = _ended(worker, i) if isinstance(error, EOFError | ConnectionError) else None
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
    processes: list[SubprocEnvWorker] = []
    for worker in workers:
        if isinstance(worker, SubprocEnvWorker):
            if not worker.is_closed:
                processes.append(worker)
        elif not isinstance(worker, DummyEnvWorker) or hasattr(worker, "env"):
            try:
                worker.close()
            except Exception as error:  # of any kind: the other environments are closed before it is raised
                errors.append(error)
    try:
        for worker in processes:
            worker.is_closed = True
            if wait > 0:
                _say_close(worker)
        deadline = time.monotonic() + wait
        for worker in processes:
            _read_until_end(worker, deadline)
    finally:
        for worker in processes:
            _give_back(worker)
    if errors:
        raise errors[0]


def _say_close(worker: SubprocEnvWorker) -> None:
    try:
        worker.parent_remote.send(["close", None])
    except OSError:  # the process has ended already
        return


def _read_until_end(worker: SubprocEnvWorker, deadline: float) -> None:
    """Read answers that nobody has read, which the process may wait for, until it has closed its end."""
    if getattr(worker, "process", None) is None:
        return
    try:
        while worker.parent_remote.poll(max(deadline - time.monotonic(), 0.0)):
            worker.parent_remote.recv_bytes()
    except (EOFError, OSError):
        worker.process.join(max(deadline - time.monotonic(), 0.0))


def _give_back(worker: SubprocEnvWorker) -> None:
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
    worker.buffer = None


def _ended(worker: EnvWorker, i: int) -> str:
    """Say that the process of environment ``i`` has ended, and how."""
    process = worker.process  # type: ignore[attr-defined]
    process.join(timeout=5.0)
    code = process.exitcode
    how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"the process of environment {i} has ended ({how}); an exception in it has printed its traceback"


def _successor(worker: EnvWorker, i: int) -> EnvWorker:
    """Start a new process for environment ``i``, whose worker was closed."""
    assert isinstance(worker, SubprocEnvWorker)
    method = getattr(worker.process, "_start_method", None)
    settings = {"share_memory": worker.share_memory, "context": method}
    return _build_worker(SubprocEnvWorker, worker._env_fn, i, **settings)


def _is_process(worker: EnvWorker) -> bool:
    return isinstance(worker, SubprocEnvWorker)


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
