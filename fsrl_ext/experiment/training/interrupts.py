"""Lets what saves a run come to its end, whatever the keyboard says."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignores Ctrl-C, and every other signal that a handler in Python answers, while the block lasts.

    Python runs handlers in the main thread alone, so the block changes nothing in another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and callable(signal.getsignal(number)):
            handlers[number] = signal.signal(number, _ignore)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    """Does nothing; a handler, unlike ``SIG_IGN``, is not inherited by processes that start meanwhile."""
