"""Ctrl-C and the signals that end a run do not cut the storing of a step in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


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
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                former = signal.getsignal(number)
                if callable(former):  # neither ignored nor left to the system
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
