"""What went wrong in a run, and what is left of it."""

from __future__ import annotations

import os
import traceback
from typing import Any

# Files whose RuntimeError says that a process has ended.
_RAISERS = tuple(os.path.join("fsrl_ext", "data", name) for name in ("ahead.py", "env_workers.py"))
# Files through which an answer of another process arrives.
_CONNECTIONS = (os.path.join("tianshou", "env", "worker"), os.path.join("fsrl_ext", "data", "ahead.py"))


def lost_process(error: BaseException, collector: Any) -> str | None:
    """What to say of an error that came because a process of the run has ended; ``None`` for other errors.

    :param collector: of the training data.
    """
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, RuntimeError):
        return str(error) if files[-1].endswith(_RAISERS) else None
    if not isinstance(error, EOFError | ConnectionError):
        return None
    if not any(part in file for file in files for part in _CONNECTIONS):
        return None
    for number, worker in enumerate(getattr(getattr(collector, "env", None), "workers", ())):
        process = getattr(worker, "process", None)
        if process is not None:
            process.join(timeout=1)
            if process.exitcode is not None:
                return f"the process of environment {number} has ended ({_ending(process.exitcode)})"
    return "the process of an environment has ended"


def _ending(exitcode: int) -> str:
    return f"killed by signal {-exitcode}" if exitcode < 0 else f"exit code {exitcode}"
