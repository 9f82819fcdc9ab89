"""Whether saved settings have the types that a config class states."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from fsrl_ext.report.structure import is_number, short

_LARGEST = 10**15
"""Of whole numbers; no setting comes near."""


def check_types(cls: type, saved: Mapping[str, Any], section: str = "") -> None:
    """Checks saved settings by the type hints of a dataclass; names that it does not have are passed over.

    A whole number may be saved as a float that is whole, and one number may stand for a tuple of them.

    :param section: what the message puts before the name.
    :raises ValueError: for the first setting of another type, naming it, its value and what is allowed.
    """
    for name, kind in typing.get_type_hints(cls).items():
        if name in saved and not _fits(saved[name], kind):
            raise ValueError(f"{section}{name} must be {_words(kind)}, got {short(saved[name])}")


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return type(value) in (str, int, bool) and value in inner
    if isinstance(kind, types.UnionType) or origin is typing.Union:
        return any(_fits(value, x) for x in inner)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return inner == (float, ...) and is_number(value)
        if inner[-1] is ...:
            return all(_fits(x, inner[0]) for x in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if kind is type(None):
        return value is None
    if kind in (bool, str):
        return type(value) is kind
    if kind is float:
        return is_number(value)
    if kind is int:
        return is_number(value) and abs(value) <= _LARGEST and math.floor(value) == value
    return True  # a class of another package has its own checks


def _words(kind: Any) -> str:
    """What a type allows."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if isinstance(kind, types.UnionType) or origin is typing.Union:
        return " or ".join(map(_words, inner))
    if origin is tuple:
        return f"a list, each entry {_words(inner[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return names.get(kind, str(kind))
