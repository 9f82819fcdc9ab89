"""Calling the environments of a vector, whether they have processes or share some.

Dimension: ``R`` environments that are called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from tianshou.env import BaseVectorEnv, DummyVectorEnv, VectorEnvWrapper
from tianshou.env.worker import DummyEnvWorker, EnvWorker, SubprocEnvWorker

from fsrl_ext.data.env_closing import close_workers, how_ended
from fsrl_ext.data.env_groups import EnvGroup, GroupedVectorEnv, GroupedWorker, LocalGroup
from fsrl_ext.data.env_workers import PLAIN_VECTORS, build_group, build_successor
from fsrl_ext.data.errors import ProcessEndedError
from fsrl_ext.data.worker_env import FAILURE
from fsrl_ext.errors import check_reset, check_step

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
                group = build_group(old.env_fns, mates[0], old.method)
            for mate in mates:
                self.workers[mate].group = group  # type: ignore[attr-defined]
            self._lost.update(mates)
        else:
            self.workers[i] = build_successor(worker, i)
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
                raise ProcessEndedError(how_ended(self.workers[i], self._mates[i]))
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
