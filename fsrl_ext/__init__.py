"""Constrained ("safe") reinforcement learning in Tianshou's style."""

import contextlib
import io

# gymnasium loads the plugins of installed packages while it is imported, and some of them print notices
# about tasks that have nothing to do with this library.
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    import gymnasium  # noqa: F401

__version__ = "0.2.0"
