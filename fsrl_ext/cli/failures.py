"""What the command line says of an error: one line, and below an environment's own part of the traceback."""

from __future__ import annotations

import os
import re
import traceback

from fsrl_ext.cli.terminal import one_line

# Through these packages an environment is called, and these call the policy, which is no environment.
_CALLERS = tuple(f"{os.sep}{name}{os.sep}" for name in ("fsrl_ext", "tianshou"))
_WRAPPERS = f"{os.sep}gymnasium{os.sep}"
_REMOTE = ("RemoteTraceback", "RemoteTracebackError")  # of multiprocessing, and of our collectors
_METHODS = ("__init__", "reset", "step", "render", "close")
_FRAME = re.compile(r'^  File "(?P<file>.+?)", line \d+, in (?P<name>\S+)\n(?:    .*\n)*', re.MULTILINE)


def explained(error: Exception) -> tuple[str, int] | None:
    """The text that tells a user what happened, and the exit code; ``None`` for an error of this package.

    The code is 2 for input that cannot be used, and 1 for a run that could not go on.
    """
    from fsrl_ext.errors import RunStoppedError

    line = "; ".join([one_line(error), *getattr(error, "__notes__", ())])
    own = environment_part(error)
    if own is not None:
        return f"{own}fsrl-ext: the environment raised {type(error).__name__}: {line}", 1
    if isinstance(error, FloatingPointError | RunStoppedError):
        return f"fsrl-ext: {line}", 1
    if isinstance(error, ValueError | ImportError | OSError):
        return f"fsrl-ext: {line}", 2
    return None


def interruption(error: BaseException) -> str:
    """The line that says that a command was interrupted, and how to go on."""
    return "; ".join(["fsrl-ext: interrupted", *getattr(error, "__notes__", ())])


def environment_part(error: BaseException) -> str | None:
    """The part of a traceback that begins in an environment's own code; ``None`` if there is none.

    The traceback may have come from another process, as the text of the error's cause.
    """
    text = "".join(traceback.format_tb(error.__traceback__))
    is_remote = type(error.__cause__).__name__ in _REMOTE
    if is_remote:
        text += str(error.__cause__)
    frames = list(_FRAME.finditer(text))
    ours = [i for i, frame in enumerate(frames) if any(name in frame["file"] for name in _CALLERS)]
    if not ours:
        return None
    own = frames[ours[-1] + 1 :]
    while own and _WRAPPERS in own[0]["file"]:
        own = own[1:]
    if not own or own[0]["name"] not in _METHODS:
        return None
    if not is_remote and not _is_environments(error, len(own)):
        return None
    return "Traceback (in the environment):\n" + "".join(frame[0] for frame in own)


def _is_environments(error: BaseException, depth: int) -> bool:
    """Whether the first of the last ``depth`` frames belongs to a method of an environment."""
    from gymnasium import Env

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(frames[-depth].f_locals.get("self"), Env)
