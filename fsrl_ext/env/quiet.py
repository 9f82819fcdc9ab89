"""Silence while a simulator is imported or built."""

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
    # Never closed: a module imported meanwhile may have kept a reference to it. Opened by file
    # descriptor, because bullet-safety-gym takes a stream whose name is a string for a C stream.
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
    """Drop warnings and all that is written to stdout and stderr, by Python or by C.

    Exceptions pass. File descriptors belong to the whole process, so what another thread prints in
    the meantime is lost too: keep the block short.
    """
    _flush()
    saved: dict[int, int] = {}
    for fd in (1, 2):
        with contextlib.suppress(OSError):  # a process without that stream
            saved[fd] = os.dup(fd)
            os.dup2(_sink().fileno(), fd)
    with contextlib.ExitStack() as stack:
        # A stream on its usual descriptor stays in place (the imported module may keep it).
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
