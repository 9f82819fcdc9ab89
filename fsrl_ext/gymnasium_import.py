"""Imports gymnasium before any room that needs it, without the notices of its plugins.

Gymnasium loads the plugins of installed packages while it is imported. Some of them print notices about tasks
that have nothing to do with this library, and some import MuJoCo, which refuses a wrong ``MUJOCO_GL``.
"""

import contextlib
import io
import os

try:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import gymnasium  # noqa: F401
except Exception as error:
    if not os.environ.get("MUJOCO_GL"):
        raise
    raise ImportError(
        f"gymnasium cannot be imported with MUJOCO_GL={os.environ['MUJOCO_GL']!r} "
        f"({type(error).__name__}: {error}); unset the variable, or set it to egl, osmesa or glfw, "
        "whichever this machine has"
    ) from error
