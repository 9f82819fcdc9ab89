"""Drop what simulators print while they are imported or built."""

import contextlib
import ctypes
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


@functools.cache
def _sink() -> TextIO:
    # The stream is never closed, because a module that was imported under `quiet` may keep a reference to it.
    # It is opened by file descriptor, because bullet-safety-gym takes a stream whose name is a string for a
    # C stream.
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)


def _writes_to(stream: TextIO | None, fd: int) -> bool:
    try:
        return stream is not None and stream.fileno() == fd
    except (AttributeError, OSError, ValueError):
        return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and everything that the block writes to stdout and stderr, from Python or from C.

    Exceptions pass through. File descriptors belong to the whole process, so output of other threads is lost
    too while the block runs. Keep the block short.
    """
    _flush()
    saved: dict[int, int] = {}
    for fd in (1, 2):
        with contextlib.suppress(OSError):  # the process may lack that stream
            saved[fd] = os.dup(fd)
            os.dup2(_sink().fileno(), fd)
    with contextlib.ExitStack() as stack:
        # A stream on its usual descriptor is not replaced, because an imported module may keep a reference.
        if not _writes_to(sys.stdout, 1):
            stack.enter_context(contextlib.redirect_stdout(_sink()))
        if not _writes_to(sys.stderr, 2):
            stack.enter_context(contextlib.redirect_stderr(_sink()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            _flush()
            for fd, copy in saved.items():
                os.dup2(copy, fd)
                os.close(copy)
