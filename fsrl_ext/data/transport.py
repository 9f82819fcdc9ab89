"""Calling the methods of an object in another process, or in this one as if it were another.

A *worker* is any object with a method ``close``. Both transports answer one message after the other: a
message is the name of a method with its arguments, and its answer is what the method returns or raises.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import signal
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import cloudpickle
import torch

from fsrl_ext.data.env_closing import CLOSE_SECONDS
from fsrl_ext.data.errors import ProcessEndedError
from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.data.randomness import GlobalRandomness
from fsrl_ext.data.remote_errors import RemoteError

POLL_SECONDS = 1.0
"""Seconds between two looks whether an answer has come; Ctrl-C counts at once."""


class ProcessTransport:
    """A worker in a process of its own.

    The process starts at once and builds its worker while this one goes on. It ends when :meth:`close` is
    called, when this object is not referred to any more, and when this process ends in whatever way. The
    script that this process runs is not imported there; what it defines is pickled by value.

    :param make: builds the worker; must be picklable by ``cloudpickle``.
    :param owner: what an error calls the object that the worker belongs to.
    :param name: what an error calls the process.
    :param remedy: what an error tells the user to do when the process has ended.
    :param niceness: is added to that of the process, where the system has one; a higher number is a lower
        priority.
    """

    survives_interrupts = True
    """Whether a message is still answered after Ctrl-C came while its answer was waited for."""

    def __init__(
        self, make: Callable[[], Any], *, owner: str, name: str, remedy: str, niceness: int = 0
    ) -> None:
        self._owner, self._name, self._remedy = owner, name, remedy
        self._owed, self._built = 1, False  # the first answer is about the construction
        pickled = cloudpickle.dumps(make)
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(pickled, theirs, niceness))
        self._finalizer = weakref.finalize(self, _end, self._connection, theirs, self.process)
        try:
            with _without_main_module():
                self.process.start()
            theirs.close()
        except BaseException:
            self._finalizer()
            raise

    def send(self, *message: Any) -> None:
        """Send a message.

        :raises ProcessEndedError: the process has ended.
        """
        with InterruptGuard() as guard:
            guard.hold()  # Half a message would be the beginning of the next one.
            try:
                self._connection.send(message)
            except OSError as error:
                self._raise_ended(error)
            self._owed += 1

    def wait(self) -> None:
        """Wait until the answer to the newest message can be read; older ones are dropped.

        An answer was not read if Ctrl-C came before.

        :raises Exception: what the construction of the worker raised.
        :raises ProcessEndedError: the process has ended.
        """
        while True:
            try:
                while not self._connection.poll(POLL_SECONDS):
                    continue
            except OSError as error:
                self._raise_ended(error)
            if self._owed <= 1:
                return
            self._read_any()

    def read(self) -> Any:
        """Return the answer that :meth:`wait` waited for, or raise it."""
        answer = self._read_any()
        if isinstance(answer, RemoteError):
            answer.raise_here()
        return answer

    def close(self, *, at_once: bool = False) -> None:
        """End the process; may be called again.

        :param at_once: whether a message that is being answered is broken off. The worker is closed anyway.
        """
        if at_once and self._finalizer.alive and self.process.is_alive():
            self.process.terminate()
        self._finalizer()

    def _read_any(self) -> Any:
        with InterruptGuard() as guard:
            guard.hold()  # The rest of half an answer would be the beginning of the next one.
            try:
                answer = self._connection.recv()
            except (EOFError, OSError) as error:
                self._raise_ended(error)
            self._owed -= 1
            built, self._built = self._built, True
            if not built and isinstance(answer, RemoteError):
                answer.raise_here()
            return answer

    def _raise_ended(self, error: Exception) -> NoReturn:
        if not self._finalizer.alive:
            raise ProcessEndedError(f"{self._owner} is closed") from error
        if not self._built:
            # The process may have said why its worker could not be built before it ended.
            answer = None
            with contextlib.suppress(EOFError, OSError):
                if self._connection.poll():
                    answer = self._connection.recv()
            if isinstance(answer, RemoteError):
                answer.raise_here()
        self.process.join(timeout=5)
        raise ProcessEndedError(
            f"{self._name} has ended (exit code {self.process.exitcode}); {self._remedy}"
        ) from error


class LocalTransport:
    """A worker in this process that computes what it would compute in a :class:`ProcessTransport`.

    It is a copy, is given copies and answers with copies, has global random numbers of its own, and computes
    with one torch thread. A message is computed when its answer is waited for, with the arguments that it was
    sent with.

    :param make: as for a process; what it refers to is copied.
    :param owner: as for a process.
    """

    survives_interrupts = False

    def __init__(self, make: Callable[[], Any], *, owner: str) -> None:
        self._owner = owner
        self._message: tuple[Any, ...] | None = None
        self._answer: Any = None
        self._error: Exception | None = None
        self._randomness = GlobalRandomness().state_dict()
        with self._own_globals():
            self._worker = cloudpickle.loads(cloudpickle.dumps(make))()
        self._closed = False

    def send(self, *message: Any) -> None:
        """Note a message; see :class:`ProcessTransport`."""
        self._check_open()
        self._message = copy.deepcopy(message)

    def wait(self) -> None:
        """Compute the answer to the newest message."""
        self._check_open()
        if self._message is None:
            return
        (name, *arguments), self._message = self._message, None
        self._answer = self._error = None
        with self._own_globals():
            try:
                self._answer = copy.deepcopy(getattr(self._worker, name)(*arguments))
            except Exception as error:  # of any kind: it is the answer
                self._error = error

    def read(self) -> Any:
        """Return the answer that :meth:`wait` waited for, or raise it."""
        answer, error = self._answer, self._error
        self._answer = self._error = None
        if error is not None:
            raise error
        return answer

    def close(self, *, at_once: bool = False) -> None:
        """Close the worker; may be called again."""
        if not self._closed:
            self._closed = True
            self._worker.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ProcessEndedError(f"{self._owner} is closed")

    @contextlib.contextmanager
    def _own_globals(self) -> Iterator[None]:
        """Let the block have the worker's random numbers and its number of threads."""
        here, threads = GlobalRandomness().state_dict(), torch.get_num_threads()
        GlobalRandomness().load_state_dict(self._randomness)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            self._randomness = GlobalRandomness().state_dict()
            GlobalRandomness().load_state_dict(here)
            torch.set_num_threads(threads)


def _serve(pickled: bytes, connection: Connection, niceness: int) -> None:
    """Answer messages until the other process closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, which then ends this one
    signal.signal(signal.SIGTERM, _exit)
    if niceness and hasattr(os, "nice"):
        os.nice(niceness)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, ConnectionError):  # nobody is left to be told
        try:
            worker = cloudpickle.loads(pickled)()
        except Exception as error:  # of any kind: the other process raises it
            connection.send(RemoteError.of(error))
            return
        try:
            connection.send(None)
            while True:
                name, *arguments = connection.recv()
                try:
                    answer: Any = getattr(worker, name)(*arguments)
                except Exception as error:  # of any kind: the other process raises it
                    answer = RemoteError.of(error)
                connection.send(answer)
        finally:
            worker.close()


def _exit(number: int, frame: object) -> None:
    """Let the process close its worker before it ends."""
    raise SystemExit(128 + number)


def _end(connection: Connection, theirs: Connection, process: Any) -> None:
    connection.close()
    theirs.close()
    if process.pid is not None:
        process.join(timeout=CLOSE_SECONDS)
        if process.is_alive():
            process.terminate()
            process.join(timeout=1.0)
        if process.is_alive():
            process.kill()
            process.join()
    process.close()


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Let a process that is started in the block not run this one's script, which may have no guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
