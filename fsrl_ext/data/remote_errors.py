"""Exceptions on their way from one process to another."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import NoReturn, Self


class RemoteTracebackError(Exception):
    """Shows the traceback of another process, as the cause of the exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


@dataclass(frozen=True)
class RemoteError:
    """An exception in a form that any process can read: pickling it never fails, and neither does reading it.

    An exception loses its traceback when it is pickled, and some cannot be pickled or read at all, such as
    those whose constructor takes other arguments than their message.
    """

    pickled: bytes | None
    """The exception; None if it cannot be pickled."""
    summary: str
    """Its type and message, for a process that cannot read it."""
    traceback: str
    """Its traceback as text."""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Prepare an exception that was caught."""
        try:
            pickled = pickle.dumps(error)
        except Exception:  # of any kind: what pickling a user's class raises is not known
            pickled = None
        summary = "".join(traceback.format_exception_only(error)).strip()
        return cls(pickled, summary, "".join(traceback.format_exception(error)))

    def raise_here(self, note: str | None = None) -> NoReturn:
        """Raise the exception in this process, with its traceback as its cause.

        :param note: a line that is shown below the message.
        :raises RuntimeError: the exception cannot be read here; the message has its type and its own message.
        """
        error: BaseException
        try:
            error = pickle.loads(self.pickled) if self.pickled else RuntimeError(self.summary)
        except Exception:  # of any kind: what reading a user's class raises is not known
            error = RuntimeError(self.summary)
        if not isinstance(error, BaseException):
            error = RuntimeError(self.summary)
        if note is not None:
            error.add_note(note)
        raise error from RemoteTracebackError(self.traceback)
