"""Let several environments of one process draw: MuJoCo's viewers share the thread's OpenGL state.

OpenGL numbers pictures and frame buffers per context, and every call acts on the context that is current.
Gymnasium's viewers make their context current once, when they are built, and leave the numbers of a closed
viewer to Python's garbage collector. Without the functions below, an environment would draw into another
one's context, or a frame would be black after the collector had deleted another viewer's buffers.
"""

from typing import Any


def draw_in_own_context(owner: Any) -> None:
    """Make the viewer's context current whenever `owner` takes a viewer to draw with.

    :param owner: safety-gymnasium's task or Gymnasium's `MujocoRenderer`; both have `_get_viewer`.
    """
    get_viewer = owner._get_viewer

    def current_viewer(*args: Any, **kwargs: Any) -> Any:
        viewer = get_viewer(*args, **kwargs)
        viewer.make_context_current()
        return viewer

    owner._get_viewer = current_viewer


def close_viewers(owner: Any) -> None:
    """Free the viewers' buffers in their own contexts, and close the viewers; a second call does nothing."""
    while owner._viewers:
        _, viewer = owner._viewers.popitem()
        viewer.make_context_current()
        viewer.con.free()
        viewer.close()
    owner.viewer = None
