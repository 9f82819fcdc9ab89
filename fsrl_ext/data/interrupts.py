"""Ctrl-C and the signals that end a run wait while a step is stored, and do nothing while a run is saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def _handlers() -> dict[int, Callable[[int, FrameType | None], Any]]:
    """The handlers in Python of these signals, neither ignored nor left to the system; Python runs them in
    the main thread alone, so another thread has none.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    return {number: handler for number, handler in handlers.items() if callable(handler)}


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignores Ctrl-C, and every other signal that a handler in Python answers, while the block lasts.

    The block changes nothing in a thread that is not the main one.
    """
    former = _handlers()
    for number in former:
        signal.signal(number, _ignore)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    """Does nothing; a handler, unlike ``SIG_IGN``, is not inherited by processes that start meanwhile."""


class InterruptGuard:
    """Lets a block's owner put off the handlers of SIGINT, SIGTERM and SIGHUP for a moment.

    Python may run a signal's handler, which raises ``KeyboardInterrupt``, between any two operations. Between
    :meth:`hold` and :meth:`release` the handlers wait; :meth:`release` runs the one that was put off. Only
    handlers that are Python functions can wait. The guard does nothing outside of the main thread, where no
    handler runs.

    Use it as a context manager; the former handlers are back when it closes. Entering takes some
    microseconds, and :meth:`hold` and :meth:`release` take next to nothing, so that one guard serves all
    steps of a collect.
    """

    def __init__(self) -> None:
        self._former: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._held = False
        self._waiting: tuple[int, FrameType | None] | None = None

    def hold(self) -> None:
        """Put off the handlers from now on."""
        self._held = True

    @property
    def waiting(self) -> bool:
        """Whether a handler was put off and has not run."""
        return self._waiting is not None

    def release(self) -> None:
        """Let handlers run at once again, and run the one that was put off."""
        self._held = False
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._former[waiting[0]](*waiting)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._waiting = (number, frame)
        else:
            self._former[number](number, frame)

    def __enter__(self) -> Self:
        for number, former in _handlers().items():
            self._former[number] = former
            signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            if signal.getsignal(number) == self._handle:  # a user's code may have set another one meanwhile
                signal.signal(number, former)
        self.release()
