"""Keeps a run folder to one process at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator

from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.folder import RunFolder

_held: set[str] = set()
_guard = threading.Lock()


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lets nobody else train the run while the block lasts.

    The operating system releases the lock when the process ends, however it ends. A fork does not inherit the
    lock, so environments in processes of their own do not prolong it. On file systems that have no locks the
    block runs with a warning.

    :raises RunFolderError: if the run is being trained, here or by another process, or if the folder cannot
        be written.
    """
    key = os.path.realpath(folder.path)
    with _guard:  # the operating system's locks do not exclude two threads of one process
        if key in _held:
            raise RunFolderError(f"{folder.path} is in use: this process trains it already")
        _held.add(key)
    try:
        descriptor = _open_locked(folder)
        try:
            yield
        finally:
            # The file goes while it is locked, so it is not one that another process has locked since.
            # Windows keeps the name of an open file, and an unlocked file does no harm.
            with contextlib.suppress(OSError):
                folder.lock.unlink()
            os.close(descriptor)
    finally:
        with _guard:
            _held.discard(key)


def trained_by(folder: RunFolder) -> str | None:
    """The process that trains the run at this moment, as ``"12 on host"``; ``None`` if there is none.

    The folder stays as it is.
    """
    with _guard:  # closing a file gives up all locks that this process has on it
        if os.path.realpath(folder.path) in _held:
            return f"{os.getpid()} on {socket.gethostname()}"
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(folder.lock, flags)
        except OSError:
            return None
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):
            return os.read(descriptor, 200).decode(errors="replace").strip() or "unknown"
        except OSError:  # the file system has no locks
            return None
        finally:
            os.close(descriptor)
    return None


def _open_locked(folder: RunFolder) -> int:
    """Opens and locks the lock file; returns its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            descriptor = os.open(folder.lock, flags, 0o666)
        except OSError as error:
            raise RunFolderError(f"{folder.path} cannot be written: {error.strerror}") from error
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError) as error:
            owner = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunFolderError(
                f"{folder.path} is in use: process {owner or 'unknown'} trains it; wait for it, or stop it"
            ) from error
        except OSError as error:
            warnings.warn(
                f"{folder.path} cannot be locked ({error.strerror}); do not resume it twice at a time",
                stacklevel=2,
            )
        if _is_at(descriptor, folder.lock):
            break
        os.close(descriptor)  # the process that trained before has just removed this file
    with contextlib.suppress(OSError):  # on a full disk the lock alone has to do
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _is_at(descriptor: int, path: os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
