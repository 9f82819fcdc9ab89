"""Define what a check of an environment says."""

import os
import traceback
from dataclasses import dataclass
from typing import Literal

_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("fsrl_ext", "gymnasium", "pettingzoo", "numpy"))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check of an environment says.

    :param check: the name of the check.
    :param status: "ok", "fails", or "skipped" where the check could not be made.
    :param message: what was seen; for a skipped check, the reason.
    :param fix: the line of code that mends a failure; empty for other findings.
    """

    check: str
    status: Literal["ok", "fails", "skipped"]
    message: str
    fix: str = ""


class CheckFailedError(Exception):
    """Reports that an environment does not pass a check.

    :param message: what was seen.
    :param fix: the line of code that mends it.
    """

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class SkippedError(Exception):
    """Reports that a check cannot be made; the message has the reason."""


def raised(error: BaseException) -> str:
    """Describe an exception in one line, with its place in the environment's own code, if it has one."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(name in frame.filename for name in _PACKAGES)]
    where = f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else ""
    return f"{kind}: {text}{where}" if text else f"{kind}{where}"
