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

PAGES = {
    "ContractError": "docs/your_own_environment.md",
    "CostNamesError": "docs/many_costs.md",
    "UnknownTaskError": "docs/environments.md",
    "SuiteNotInstalledError": "docs/environments.md",
    "TaskImportError": "docs/your_own_environment.md",
    "FamilyError": "docs/meta_tasks.md",
    "UnknownPolicyError": "docs/choosing.md",
    "CostCountError": "docs/many_costs.md",
    "NonFiniteError": "docs/runs.md",
    "RunFolderError": "docs/runs.md",
    "RunStoppedError": "docs/runs.md",
    "NoCheckpointError": "docs/runs.md",
    "UnknownZooPolicyError": "docs/zoo.md",
    "CheckpointError": "docs/trust.md",
}
"""The page of the documentation that helps, by the name of the error's class or of a base of it."""

COMMAND_PAGES = {
    "sweep": "docs/sweeps.md",
    "evaluate": "docs/evaluation.md",
    "adapt": "docs/algorithms/meta_cpo.md",
    "diagnose": "docs/diagnose.md",
    "export": "docs/export.md",
    "report": "docs/report.md",
    "table": "docs/experiments.md",
    "plot": "docs/experiments.md",
}
"""The page of a command, for its errors of other classes."""


def explained(error: Exception, command: str = "") -> tuple[str, int] | None:
    """The text that tells a user what happened, and the exit code; ``None`` for an error of this package.

    :param command: the name of the command, which may have a page that helps.

    The code is 2 for input that cannot be used, and 1 for a run that could not go on.
    """
    from fsrl_ext.errors import RunStoppedError

    page = page_of(error, command)
    where = "" if page is None else f" (see {page})"
    line = "; ".join([one_line(error) + where, *getattr(error, "__notes__", ())])
    own = environment_part(error)
    if own is not None:
        return f"{own}fsrl-ext: the environment raised {type(error).__name__}: {line}", 1
    if isinstance(error, FloatingPointError | RunStoppedError):
        return f"fsrl-ext: {line}", 1
    if isinstance(error, ValueError | ImportError | OSError):
        return f"fsrl-ext: {line}", 2
    return None


def page_of(error: BaseException, command: str = "") -> str | None:
    """The page of the documentation that helps with an error; ``None`` if there is none."""
    of_class = next((PAGES[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in PAGES), None)
    return of_class or COMMAND_PAGES.get(command)


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
