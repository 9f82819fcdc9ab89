"""Check the render modes that an environment claims."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from fsrl_ext.env.check.findings import CheckFailedError, raised

_CONSTRUCTOR = "def __init__(self, render_mode=None):"
_WINDOW = "human"


def check_drawing(
    env: gymnasium.Env, build: Callable[[str], gymnasium.Env] | None, claimed: Any, seed: int
) -> str:
    """Check that each claimed mode gives pictures or texts; the mode of windows is not tried.

    :param env: the environment; it is drawn in its own mode if there is no `build`.
    :param build: builds an environment with a render mode; None if that cannot be done.
    :param claimed: the `metadata["render_modes"]` of the user's class.
    """
    if not isinstance(claimed, list | tuple) or not all(isinstance(mode, str) for mode in claimed):
        raise CheckFailedError(
            f'metadata["render_modes"] must be a list of names, got {claimed!r}',
            'metadata = {"render_modes": ["rgb_array"], "render_fps": 30}',
        )
    modes = [mode for mode in claimed if mode != _WINDOW]
    if not modes:
        return "no modes of pictures are claimed, so there are no films"
    if build is None:
        modes = [mode for mode in modes if mode == env.render_mode]
    fps = env.metadata.get("render_fps")
    if "rgb_array" in modes and not (isinstance(fps, int | float) and fps > 0):
        raise CheckFailedError(
            f'metadata["render_fps"] must be a number > 0, which films need, got {fps!r}',
            f'metadata = {{"render_modes": {list(claimed)}, "render_fps": 30}}',
        )
    for mode in modes:
        picture = _draw(env, build, mode, seed)
        wrong = _mistake(mode, picture)
        if wrong is not None:
            raise CheckFailedError(f'render() of render_mode="{mode}" must return {wrong[0]}', wrong[1])
    untried = f"; {_WINDOW} was not tried, because it opens a window" if _WINDOW in claimed else ""
    return f"{', '.join(modes) or 'the environment was built without a mode'}{untried}"


def _draw(env: gymnasium.Env, build: Callable[[str], gymnasium.Env] | None, mode: str, seed: int) -> Any:
    fix = _CONSTRUCTOR
    try:
        drawn = env if build is None else build(mode)
        try:
            if drawn.render_mode != mode:
                raise CheckFailedError(
                    f'render_mode is {drawn.render_mode!r} in an environment built with "{mode}"',
                    "self.render_mode = render_mode  # in the constructor",
                )
            fix = "def render(self):  # returns a picture in each mode that metadata claims"
            drawn.reset(seed=seed)
            drawn.step(drawn.action_space.sample())
            return drawn.render()
        finally:
            if build is not None:
                drawn.close()
    except CheckFailedError:
        raise
    except Exception as error:  # of any kind, because the code is the user's
        raise CheckFailedError(f'render_mode="{mode}" raised {raised(error)}', fix) from error


def _mistake(mode: str, picture: Any) -> tuple[str, str] | None:
    """Return what a mode must return and did not, and the line that returns it; None if all is well."""
    if mode.endswith("_list"):
        if not isinstance(picture, list) or not picture:
            return f"a list of frames, got {_kind(picture)}", "return list(self.frames)"
        inner = _mistake(mode.removesuffix("_list"), picture[-1])
        return None if inner is None else (f"a list, each frame {inner[0]}", inner[1])
    if mode == "rgb_array":
        is_frame = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
        if not (is_frame and picture.ndim == 3 and picture.shape[2] == 3):
            line = "return np.asarray(frame, np.uint8)  # of shape (height, width, 3)"
            return f"a uint8 array [height, width, 3], got {_kind(picture)}", line
    if mode == "depth_array" and not (isinstance(picture, np.ndarray) and picture.ndim == 2):
        return f"an array [height, width], got {_kind(picture)}", "return np.asarray(depth, np.float32)"
    if mode == "ansi" and not isinstance(picture, str):
        return f"a text, got {_kind(picture)}", "return str(self.state)"
    return None


def _kind(picture: Any) -> str:
    if isinstance(picture, np.ndarray):
        return f"{picture.dtype} of shape {picture.shape}"
    return f"an object of type {type(picture).__name__}"
