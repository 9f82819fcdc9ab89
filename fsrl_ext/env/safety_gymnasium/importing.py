"""Import safety-gymnasium 1.0.0 on Python >= 3.11, without its notices."""

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from fsrl_ext.env.quiet import quiet


@contextlib.contextmanager
def array_defaults() -> Iterator[None]:
    """Let the dataclasses that the block defines have NumPy arrays as defaults.

    Python 3.11 refuses defaults that cannot be hashed, and safety-gymnasium has arrays as defaults. Inside of
    the block such a default becomes `field(default_factory=...)`, a fresh copy for every instance.
    """
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Callable[..., Any]:
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        for name in inspect.get_annotations(cls):
            default = cls.__dict__.get(name)
            if isinstance(default, np.ndarray):
                setattr(cls, name, dataclasses.field(default_factory=default.copy))
        return original(cls, **options)

    dataclasses.dataclass = dataclass  # type: ignore[assignment]
    try:
        yield
    finally:
        dataclasses.dataclass = original


def import_safety_gymnasium() -> ModuleType:
    """Return the package `safety_gymnasium`; the first call imports it inside of `array_defaults`."""
    if "safety_gymnasium" not in sys.modules:
        with quiet(), array_defaults():
            import safety_gymnasium  # noqa: F401
    return sys.modules["safety_gymnasium"]
