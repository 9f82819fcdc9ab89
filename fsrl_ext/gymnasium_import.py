"""Imports gymnasium before any room that needs it, without the notices of its plugins.

Gymnasium loads the plugins of installed packages while it is imported, and some of them print notices about
tasks that have nothing to do with this library.
"""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    import gymnasium  # noqa: F401
