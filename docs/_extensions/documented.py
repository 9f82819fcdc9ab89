"""Lets the build warn of every name of the API reference that has no docstring; ``make docs`` fails then."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

PACKAGE = "fsrl_ext"
LOGGER = logging.getLogger(__name__)


def check(app: Sphinx, what: str, name: str, value: Any, _options: Any, lines: list[str]) -> None:
    """Warn if the docstring of a name, as a list of lines, is empty."""
    if getattr(value, "__module__", PACKAGE).startswith(PACKAGE) and not any(line.strip() for line in lines):
        LOGGER.warning("the %s %s has no docstring", what, name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the check with autodoc."""
    app.connect("autodoc-process-docstring", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
