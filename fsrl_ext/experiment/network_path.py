"""The networks of a user's own, by the import path of the function that makes them.

A path is ``"my_pkg.nets:make_actor"``. It names a function, or a class, that is called with a number of
inputs and returns a ``torch.nn.Module``. Settings hold the path and not the function, so that a run can be
written to a file and be resumed from it.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from fsrl_ext.errors import shown

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

_used: set[str] = set()
"""The paths whose code this process has run, or was given as a function."""


def as_path(name: str, value: Any) -> Any:
    """Returns the import path of a function; other values as they are, checked if they are text.

    :param name: of the setting.
    :raises ValueError: for a function that no path leads to, and for text that is no path.
    """
    if isinstance(value, str):
        if not _PATH.fullmatch(value):
            raise ValueError(
                f"{name} must be an import path such as my_pkg.nets:make_{name}, got {shown(value)}"
            )
        return value
    if not callable(value):
        return value
    path = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
    module = sys.modules.get(path.partition(":")[0])
    if not _PATH.fullmatch(path) or _found(module, path) is not value:
        raise ValueError(
            f"{name} must be a function or a class at the top of a module, because a run saves its import "
            f"path, got {shown(value)}"
        )
    _used.add(path)
    return path


def make_network(name: str, path: str, in_dim: int | tuple[int, ...]) -> nn.Module:
    """Returns what the function at a path makes of a number of inputs, or of the shape of an image.

    :param name: of the setting.
    :raises ValueError: if the path cannot be imported, leads to no function, or the function raises.
    """
    make = _imported(name, path)
    try:
        return make(in_dim)
    except Exception as error:  # of any kind: the function is the user's
        raise ValueError(
            f"{name} must return a network for {_inputs(in_dim)}: {path} raised {_raised(error)}"
        ) from error


def maker(name: str, path: str) -> Callable[[int], nn.Module]:
    """Returns the function from a number of inputs to the network that :func:`make_network` makes."""
    return functools.partial(make_network, name, path)


def was_used(path: str) -> bool:
    """Whether this process has run the code that a path names, or was given the function itself."""
    return path in _used


def _inputs(in_dim: int | tuple[int, ...]) -> str:
    return f"{in_dim} inputs" if isinstance(in_dim, int) else f"images {list(in_dim)}"


def _imported(name: str, path: str) -> Callable[[int | tuple[int, ...]], nn.Module]:
    module_name, _, function = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # of any kind: the module is the user's
        raise ValueError(f"{name} {path!r} cannot be imported: {_raised(error)}") from error
    value = _found(module, path)
    if value is None:
        near = difflib.get_close_matches(function, dir(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name} {path!r} cannot be imported: {module_name} has no {function}{hint}")
    if not callable(value):
        raise ValueError(
            f"{name} must be the path of a function that returns a network, got {path} = {shown(value)}"
        )
    _used.add(path)
    return value


def _found(module: Any, path: str) -> Any:
    """Returns what a path leads to in a module, ``None`` if that is nothing."""
    return functools.reduce(lambda x, part: getattr(x, part, None), path.partition(":")[2].split("."), module)


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
