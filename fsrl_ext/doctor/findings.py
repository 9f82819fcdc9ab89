"""What the examination of an installation finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Section = Literal["core", "simulators", "drawing", "machine", "extras"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the examination.

    :param section: what the line is about; without what ``core`` lists, nothing works.
    :param name: a package, a simulator, an extra or a part of the machine.
    :param status: ``"ok"``, ``"missing"`` for what is not installed, ``"fails"`` for what does not work.
    :param message: what was seen: versions, or what is missing or fails.
    :param mend: the command that mends it; empty where nothing has to be mended, or no command does.
    """

    section: Section
    name: str
    status: Literal["ok", "missing", "fails"]
    message: str
    mend: str = ""
