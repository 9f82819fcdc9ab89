"""What the command line needs of its process: streams that can write every text, and own modules."""

from __future__ import annotations

import codecs
import io
import os
import sys

_IN_ASCII = {
    "±": "+/-",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "\u2013": "-",
    "\u2014": "-",
    "\u00d7": "x",
    "…": "...",
}


def prepare_streams() -> None:
    """Lets output and errors write characters that their encoding lacks in ASCII, instead of failing.

    ``LANG=C`` and ``PYTHONIOENCODING=ascii`` make such streams, and so do some pipes and log files. What has
    no counterpart in ASCII is written as Python writes it in a text, ``\\u2603``. Progress bars ask their
    stream themselves.
    """
    codecs.register_error("fsrl_ext.ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "surrogateescape":
            stream.reconfigure(errors="fsrl_ext.ascii")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    escaped, end = codecs.backslashreplace_errors(error)
    text = error.object[error.start : error.end]
    return _IN_ASCII.get(text, escaped), end


def find_own_modules() -> None:
    """Lets tasks such as ``mytasks:Cart-v0`` come from a file in the current folder.

    The folder is searched last, so no file in it can take the place of an installed package. Processes that
    run environments search it, too.
    """
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)


def one_line(error: BaseException) -> str:
    """The text of an error in one line; the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
