"""Check that the machine can draw, because some simulators abort the process where it cannot."""

import ctypes.util
import os
import sys


def has_display() -> bool:
    """Tell whether a window can be opened; systems other than Linux are assumed to have a screen."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY"))


def require_display(env_id: str) -> None:
    """Check that a window can be opened.

    :raises RuntimeError: no window can be opened; the message names the task.
    """
    if not has_display():
        raise RuntimeError(
            f'{env_id}: render_mode="human" opens a window, and DISPLAY is not set; '
            'use render_mode="rgb_array" on a machine without a display'
        )


def require_offscreen_gl(env_id: str) -> None:
    """Make sure that MuJoCo has an OpenGL library to draw with.

    Without a display, MuJoCo would try GLFW first, which ends in a fatal error or aborts the process. This
    function therefore sets MUJOCO_GL to EGL or OSMesa, unless the user has set the variable.

    :raises RuntimeError: there is no display, and neither library is installed.
    """
    if has_display() or os.environ.get("MUJOCO_GL"):
        return
    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = backend
            return
    raise RuntimeError(
        f"{env_id}: drawing needs a display, or EGL (Debian: libegl1) or OSMesa (Debian: libosmesa6)"
    )
