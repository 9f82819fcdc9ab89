"""Lets SIGTERM and SIGHUP end a command as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended: 128 and the number of the signal, as shells have it."""


@contextlib.contextmanager
def ending_signals() -> Iterator[list[int]]:
    """Lets SIGINT, SIGTERM and SIGHUP raise ``KeyboardInterrupt`` while the block lasts.

    A signal that is ignored stays ignored, as ``nohup`` wants it. In another thread than the main one the
    block changes nothing.

    :return: the numbers of the signals that came.
    """
    received: list[int] = []
    owner = os.getpid()
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def interrupt(number: int, frame: object) -> None:
        if os.getpid() != owner and number != signal.SIGINT:
            # A process that was forked for an environment ends at once, as it would without this handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        if number == getattr(signal, "SIGHUP", None):
            _silence(terminals)
        raise KeyboardInterrupt

    former = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                former[number] = signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def exit_code(received: list[int]) -> int:
    """The exit code of an interrupted command: 128 and the number of the first signal."""
    return 128 + received[0] if received else INTERRUPTED


def _silence(terminals: list[int]) -> None:
    """Lets what is printed go nowhere: a terminal that hung up refuses it with an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
