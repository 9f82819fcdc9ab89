"""Defaults that depend on the task: one table, read before anything the user sets.

A row applies to every task that its pattern matches; later rows win.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

# bullet-safety-gym ids end in -v0, those of safety-gymnasium in -v1 or level and -v0.
TASK_DEFAULTS: tuple[tuple[str, dict[str, Any]], ...] = (("*", {"cost_limit": (10.0,)}),)


def task_defaults(task: str) -> dict[str, Any]:
    """The settings that the table gives for a task."""
    settings: dict[str, Any] = {}
    for pattern, row in TASK_DEFAULTS:
        if fnmatchcase(task, pattern):
            settings |= row
    return settings
