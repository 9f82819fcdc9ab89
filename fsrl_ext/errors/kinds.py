"""Types of values: what annotations allow, as tests and in words.

Types are read from the annotations, so a new field or argument is checked without a further line.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal


def shown(value: Any) -> str:
    """The value in one short line: of tensors and arrays the type and the shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and bool(getattr(value, "ndim", 0)):
        return f"{type(value).__name__} {list(value.shape)} of {value.dtype}"
    if isinstance(value, type):
        return value.__name__
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:80]}... (of type {type(value).__name__})"


def argument_kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotation of each argument; one that names what only type checkers import is left out."""
    plain = inspect.unwrap(function)
    kinds: dict[str, Any] = {}
    for name, text in plain.__annotations__.items():
        alone = types.SimpleNamespace(__annotations__={name: text})
        with contextlib.suppress(NameError):
            kinds |= typing.get_type_hints(alone, plain.__globals__)
    return kinds


@functools.cache
def field_kinds(cls: Any) -> dict[str, Any]:
    """The resolved annotation of each field of a dataclass."""
    kinds = typing.get_type_hints(cls)
    return {field.name: kinds[field.name] for field in dataclasses.fields(cls)}


def _members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of another kind the kind itself."""
    is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if is_union else (kind,)


def plain_value(value: Any, kind: Any) -> Any:
    """The value as Python's own numbers and tuples, as far as its kind allows that."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        value = value.tolist()
    members = _members(kind)
    if any(typing.get_origin(x) is tuple for x in members):
        if isinstance(value, list):
            return tuple(value)
        if isinstance(value, numbers.Real) and not any(x in (int, float) for x in members):
            return (value,)
    return value


def has_nan(value: Any) -> bool:
    return any(
        isinstance(x, float) and math.isnan(x) for x in (value if isinstance(value, tuple) else (value,))
    )


def is_sequence(value: Any) -> bool:
    if isinstance(value, Sequence):
        return not isinstance(value, str | bytes)
    return hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0


_NUMBERS: dict[Any, tuple[str, str, Callable[[Any], bool]]] = {
    bool: ("True or False", "truth values", lambda x: isinstance(x, bool)),
    int: (
        "a whole number",
        "whole numbers",
        lambda x: type(x) is int or (isinstance(x, numbers.Integral) and not isinstance(x, bool)),
    ),
    float: (
        "a number",
        "numbers",
        lambda x: type(x) is float or (isinstance(x, numbers.Real) and not isinstance(x, bool)),
    ),
    str: ("text", "texts", lambda x: isinstance(x, str)),
    type(None): ("None", "None", lambda x: x is None),
}
"""What a kind is called in the singular and in the plural, and whether a value is of it."""


@functools.cache
def matcher(kind: Any) -> Callable[[Any], bool]:
    """A function that tells whether a value may stand where an annotation says ``kind``."""
    if kind in _NUMBERS:
        return _NUMBERS[kind][2]
    if kind is Any:
        return lambda value: True
    if len(members := _members(kind)) > 1:
        parts = [matcher(x) for x in members]
        return lambda value: any(part(value) for part in parts)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return lambda value: any(type(value) is type(x) and value == x for x in inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        slots = [matcher(x) for x in inner]
        return lambda value: (
            is_sequence(value)
            and len(value) == len(slots)
            and all(slot(x) for slot, x in zip(slots, value, strict=True))
        )
    if origin in (tuple, collections.abc.Sequence) and inner:
        entry = matcher(inner[0])
        return lambda value: is_sequence(value) and all(entry(x) for x in value)
    if origin is collections.abc.Callable:
        return callable
    if origin is collections.abc.Iterable:
        return lambda value: hasattr(value, "__iter__") and not isinstance(value, str | bytes)
    cls = origin or kind
    if not isinstance(cls, type) or getattr(cls, "_is_protocol", False):
        return lambda value: True  # type variables, protocols
    return lambda value: isinstance(value, cls)


def described(kind: Any) -> str:
    """What an annotation allows, in words."""
    if kind in _NUMBERS:
        return _NUMBERS[kind][0]
    if len(members := _members(kind)) > 1:
        return " or ".join(dict.fromkeys(described(x) for x in members))
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {inner}"
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"({', '.join(described(x) for x in inner)})"
    if origin in (tuple, collections.abc.Sequence, collections.abc.Iterable) and inner:
        name = _NUMBERS[inner[0]][1] if inner[0] in _NUMBERS else f"{_named(inner[0])} objects"
        return f"several {name}"
    if origin is collections.abc.Callable:
        return "a function"
    return "a path" if origin is os.PathLike else f"a {_named(kind)}"


def _named(kind: Any) -> str:
    return getattr(typing.get_origin(kind) or kind, "__name__", str(kind))
