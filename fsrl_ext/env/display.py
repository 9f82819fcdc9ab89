"""What drawing needs of the machine, asked before a simulator that would abort without it."""

import ctypes.util
import os
import sys


def has_display() -> bool:
    """Whether a window can be opened; other systems than Linux are taken to have a screen."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY"))


def require_display(env_id: str) -> None:
    """Raise RuntimeError where no window can be opened."""
    if not has_display():
        raise RuntimeError(
            f'{env_id}: render_mode="human" opens a window, and DISPLAY is not set; '
            'use render_mode="rgb_array" on a machine without a display'
        )


def require_offscreen_gl(env_id: str) -> None:
    """Make sure MuJoCo has an OpenGL to draw with; without a display this is EGL or OSMesa.

    MuJoCo's own order tries GLFW first, which without a display leads to a fatal error or to an
    abort of the process. So here MUJOCO_GL is set, unless the user has set it.

    :raises RuntimeError: no display and no library found.
    """
    if has_display() or os.environ.get("MUJOCO_GL"):
        return
    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = backend
            return
    raise RuntimeError(f"{env_id}: drawing needs a display, or EGL (Debian: libegl1) or OSMesa (libosmesa6)")
