"""The library's exceptions, and the checks of settings, arguments and losses that all packages share.

Every check of a setting or an argument names it, its value and what is allowed. Types are read from the
annotations, so a new field or argument is checked without a further line; ranges and shapes are listed by
name.
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
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


class NonFiniteError(FloatingPointError):
    """An environment, a network or a loss gave NaN or infinity.

    The error is raised before the value is stored and before it changes a parameter, so buffers, networks and
    optimisers stay usable.
    """


class CheckpointError(ValueError):
    """A checkpoint is damaged, is of another program, or does not fit the policy that loads it."""


class NoCheckpointError(CheckpointError):
    """There is no checkpoint where one is expected."""


class RunFolderError(ValueError):
    """A run folder is missing, is incomplete, is in use, or exists already."""


class RunStoppedError(RuntimeError):
    """A run cannot go on: a file cannot be written, or a process of the run has ended.

    What was saved before stays, and the run can be resumed.
    """


class ArgumentTypeError(ValueError, TypeError):
    """A setting or an argument is of a type that it cannot have.

    The error is a ``ValueError`` as that of a value out of range, and a ``TypeError`` as those of Python.
    """


_LARGEST = 2**63
"""Whole numbers are smaller than this one, which neither torch nor NumPy can hold."""

_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "positive": ("> 0", lambda x: 0 < x < math.inf),
    "positive_or_inf": ("> 0", lambda x: x > 0),
    "non_negative": (">= 0", lambda x: 0 <= x < math.inf),
    "non_negative_or_inf": (">= 0", lambda x: x >= 0),
    "finite": ("a finite number", lambda x: math.isfinite(x)),
    "unit_interval": ("in (0, 1]", lambda x: 0 < x <= 1),
    "closed_unit_interval": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "open_unit_interval": ("in (0, 1)", lambda x: 0 < x < 1),
    "below_one": ("in [0, 1)", lambda x: 0 <= x < 1),
    "at_least_one": ("a whole number >= 1", lambda x: 1 <= x < _LARGEST and x == int(x)),
    "at_least_zero": ("a whole number >= 0", lambda x: 0 <= x < _LARGEST and x == int(x)),
    "seed": ("a whole number in [0, 2**32)", lambda x: 0 <= x < 2**32 and x == int(x)),
}
"""What each rule allows, in words and as a test of one number."""


def check_fields(
    config: object,
    *,
    choices: Mapping[str, Sequence[Any]] | None = None,
    **rules: Sequence[str],
) -> None:
    """Checks the ranges of a config's fields, which each rule lists by name.

    ``None`` passes, where the field's annotation allows it. Of several numbers each one is checked.

    :param config: the object whose attributes are checked.
    :param choices: the allowed values of each field that has a list of them.
    :param rules: names of fields by rule: ``positive`` and ``non_negative`` (and finite), ``positive_or_inf``
        and ``non_negative_or_inf``, ``finite``, ``unit_interval`` for (0, 1], ``closed_unit_interval`` for
        [0, 1], ``open_unit_interval`` for (0, 1), ``below_one`` for [0, 1), ``at_least_one`` and
        ``at_least_zero`` for whole numbers, ``seed`` for whole numbers in [0, 2**32).
    :raises ValueError: for the first value that is not allowed; the message names the field, its value and
        what is allowed.
    """
    for rule, names in rules.items():
        for name in names:
            _check_range(name, getattr(config, name), rule)
    for name, values in (choices or {}).items():
        value = getattr(config, name)
        if value not in values:
            raise ValueError(f"{name} must be one of {tuple(values)}, got {shown(value)}")


def check_types(config: Any) -> None:
    """Checks the types of a dataclass's fields, and turns lists, arrays and NumPy's numbers into Python's.

    A field for several values takes a single one as well.

    :param config: a dataclass, frozen or not; a field's annotation says what it may be. NaN is no number.
    :raises ArgumentTypeError: for the first value of another type; the message names the field, its value and
        what is allowed.
    """
    for name, kind in _field_kinds(typing.cast(Any, type(config))).items():
        value = getattr(config, name)
        plain = _plain(value, kind)
        if not _matcher(kind)(plain) or _has_nan(plain):
            raise ArgumentTypeError(f"{name} must be {_described(kind)}, got {shown(value)}")
        if plain is not value:
            object.__setattr__(config, name, plain)


def check_argument(name: str, value: Any, kind: Any, rule: str | None = None) -> None:
    """Checks one value, which is no field and no argument of a decorated function.

    :param kind: what an annotation would say, such as ``int`` or ``float | None``.
    :param rule: one of the rules of :func:`check_fields`; ``None`` for any value of that kind.
    :raises ValueError: if the value is not allowed; the message names it, the value and what is allowed.
    """
    if not _matcher(kind)(value):
        raise ArgumentTypeError(f"{name} must be {_described(kind)}, got {shown(value)}")
    if rule is not None:
        _check_range(name, value, rule)


F = TypeVar("F", bound=Callable[..., Any])


def checked(
    *,
    shapes: Mapping[str, str] | None = None,
    own: Sequence[str] = (),
    **rules: Sequence[str],
) -> Callable[[F], F]:
    """Decorates a function or a constructor whose arguments are to be checked before it begins.

    .. code-block:: python

        @checked(shapes={"cost": "C", "limit": "C"}, non_negative=("lr",))
        def dual_ascent(cost: Tensor, limit: Tensor, lr: float) -> Tensor: ...

    Annotations give the types; protocols and type variables are not looked at. Nothing reads the values of a
    tensor, so a check never waits for a device. A function with ``shapes`` is not checked where this library
    calls it, which happens many times in a gradient step.

    :param shapes: sizes of tensors by the name of the argument, letters and numbers separated by blanks. A
        letter stands for the same size everywhere, ``...`` for any sizes in front. Tensors hold
        floating-point numbers, or truth values if the shape begins with ``bool``.
    :param own: arguments whose type the function checks itself.
    :param rules: names of arguments by rule, as for :func:`check_fields`.
    :return: the decorator; its function raises :class:`ArgumentTypeError` for types and ``ValueError`` for
        shapes and ranges.
    """
    ranges = [(name, rule) for rule, names in rules.items() for name in names]
    wanted = {name: _parsed_shape(text) for name, text in (shapes or {}).items()}

    def decorate(function: F) -> F:
        parameters = inspect.signature(function).parameters
        unknown = {*(name for name, _ in ranges), *wanted, *own} - set(parameters)
        assert not unknown, f"{function.__qualname__} has no argument {sorted(unknown)}"
        places = tuple(parameters)
        matchers: dict[str, tuple[Callable[[Any], bool], Any]] = {}

        @functools.wraps(function)
        def checking(*args: Any, **kwargs: Any) -> Any:
            if wanted and sys._getframe(1).f_globals["__name__"].startswith("fsrl_ext."):
                return function(*args, **kwargs)
            if not matchers:  # annotations may name what is defined further down in the module
                kinds = _argument_kinds(function)
                names = [x for x in places if x in kinds and x not in own]
                matchers.update((x, (_matcher(kinds[x]), kinds[x])) for x in names)
            given = {**dict(zip(places, args, strict=False)), **kwargs}
            for name, value in given.items():
                if name in matchers and not matchers[name][0](value):
                    allowed = _described(matchers[name][1])
                    raise ArgumentTypeError(f"{name} must be {allowed}, got {shown(value)}")
            for name, rule in ranges:
                if name in given:
                    _check_range(name, given[name], rule)
            if wanted:
                _check_shapes(given, wanted)
            return function(*args, **kwargs)

        return typing.cast(F, checking)

    return decorate


def shown(value: Any) -> str:
    """The value in one short line: of tensors and arrays the type and the shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and bool(getattr(value, "ndim", 0)):
        return f"{type(value).__name__} {list(value.shape)} of {value.dtype}"
    if isinstance(value, type):
        return value.__name__
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:80]}... (of type {type(value).__name__})"


def _check_range(name: str, value: Any, rule: str) -> None:
    """:raises ValueError: for a number, or one of several, that a rule does not allow."""
    allowed, is_allowed = _RANGES[rule]
    several = _is_sequence(value)
    for number in value if several else (value,):
        if number is None or (isinstance(number, numbers.Real) and is_allowed(number)):
            continue
        if number == math.inf and allowed in ("> 0", ">= 0"):
            allowed += " and finite"
        elif isinstance(number, numbers.Integral) and int(number) >= _LARGEST and rule != "seed":
            allowed += " and < 2**63"
        raise ValueError(f"{name} must be {allowed}{' each' if several else ''}, got {shown(value)}")


def _argument_kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotation of each argument; one that names what only type checkers import is left out."""
    plain = inspect.unwrap(function)
    kinds: dict[str, Any] = {}
    for name, text in plain.__annotations__.items():
        alone = types.SimpleNamespace(__annotations__={name: text})
        with contextlib.suppress(NameError):
            kinds |= typing.get_type_hints(alone, plain.__globals__)
    return kinds


@functools.cache
def _field_kinds(cls: Any) -> dict[str, Any]:
    """The resolved annotation of each field of a dataclass."""
    kinds = typing.get_type_hints(cls)
    return {field.name: kinds[field.name] for field in dataclasses.fields(cls)}


def _members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of another kind the kind itself."""
    is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if is_union else (kind,)


def _plain(value: Any, kind: Any) -> Any:
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


def _has_nan(value: Any) -> bool:
    return any(
        isinstance(x, float) and math.isnan(x) for x in (value if isinstance(value, tuple) else (value,))
    )


def _is_sequence(value: Any) -> bool:
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
def _matcher(kind: Any) -> Callable[[Any], bool]:
    """A function that tells whether a value may stand where an annotation says ``kind``."""
    if kind in _NUMBERS:
        return _NUMBERS[kind][2]
    if kind is Any:
        return lambda value: True
    if len(members := _members(kind)) > 1:
        parts = [_matcher(x) for x in members]
        return lambda value: any(part(value) for part in parts)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return lambda value: any(type(value) is type(x) and value == x for x in inner)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        slots = [_matcher(x) for x in inner]
        return lambda value: (
            _is_sequence(value)
            and len(value) == len(slots)
            and all(slot(x) for slot, x in zip(slots, value, strict=True))
        )
    if origin in (tuple, collections.abc.Sequence) and inner:
        entry = _matcher(inner[0])
        return lambda value: _is_sequence(value) and all(entry(x) for x in value)
    if origin is collections.abc.Callable:
        return callable
    if origin is collections.abc.Iterable:
        return lambda value: hasattr(value, "__iter__") and not isinstance(value, str | bytes)
    cls = origin or kind
    if not isinstance(cls, type) or getattr(cls, "_is_protocol", False):
        return lambda value: True  # type variables, protocols
    return lambda value: isinstance(value, cls)


def _described(kind: Any) -> str:
    """What an annotation allows, in words."""
    if kind in _NUMBERS:
        return _NUMBERS[kind][0]
    if len(members := _members(kind)) > 1:
        return " or ".join(dict.fromkeys(_described(x) for x in members))
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return f"one of {inner}"
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"({', '.join(_described(x) for x in inner)})"
    if origin in (tuple, collections.abc.Sequence, collections.abc.Iterable) and inner:
        name = _NUMBERS[inner[0]][1] if inner[0] in _NUMBERS else f"{_named(inner[0])} objects"
        return f"several {name}"
    if origin is collections.abc.Callable:
        return "a function"
    return "a path" if origin is os.PathLike else f"a {_named(kind)}"


def _named(kind: Any) -> str:
    return getattr(typing.get_origin(kind) or kind, "__name__", str(kind))


def _parsed_shape(text: str) -> tuple[bool, bool, tuple[str, ...]]:
    """Whether the tensor holds truth values, whether any sizes may stand in front, and the letters."""
    letters = text.split()
    is_bool = letters[:1] == ["bool"]
    letters = letters[is_bool:]
    has_front = letters[:1] == ["..."]
    return is_bool, has_front, tuple(letters[has_front:])


def _check_shapes(given: Mapping[str, Any], wanted: Mapping[str, tuple[bool, bool, tuple[str, ...]]]) -> None:
    """:raises ValueError: for a tensor of another number type, or of sizes that contradict those before."""
    sizes: dict[str, Any] = {str(number): number for number in range(1, 4)}  # by letter
    for name, (is_bool, has_front, letters) in wanted.items():
        tensor = given.get(name)
        if tensor is None:
            continue
        shape = tensor.shape
        front = len(shape) - len(letters)
        fits = front >= 0 if has_front else front == 0
        if fits and has_front:
            fits = sizes.setdefault("...", shape[:front]) == shape[:front]
        if not fits or any(
            sizes.setdefault(letter, size) != size
            for letter, size in zip(letters, shape[front:], strict=True)
        ):
            raise ValueError(_wrong_shape(name, shape, has_front, letters, sizes))
        if not (tensor.dtype.is_floating_point or is_bool) or (str(tensor.dtype) != "torch.bool") == is_bool:
            kind = "truth values" if is_bool else "floating-point numbers"
            raise ValueError(f"{name} must hold {kind}, got {tensor.dtype}")


def _wrong_shape(
    name: str, shape: Sequence[int], has_front: bool, letters: Sequence[str], sizes: Mapping[str, Any]
) -> str:
    form = (["..."] if has_front else []) + list(letters)
    known = [*sizes.get("...", ["..."])] if has_front else []
    known += [sizes.get(letter, letter) for letter in letters]
    said = f" = [{', '.join(map(str, known))}] as the other arguments have it" if known != form else ""
    return f"{name} must have shape [{', '.join(form)}]{said}, got {list(shape)}"


def check_finite(loss: Tensor, name: str) -> None:
    """Checks that a loss is finite, before any optimiser uses it.

    :param loss: 0-dim; reading it waits for its device.
    :param name: what the error calls the loss.
    :raises NonFiniteError: if the loss is NaN or infinite.
    """
    check_all_finite(loss.reshape(1), [name])


def check_all_finite(values: Tensor, names: Sequence[str]) -> None:
    """Checks that all values are finite, before any optimiser uses them.

    :param values: ``[len(names)]``; reading them waits for their device, once.
    :param names: what the error calls each value.
    :raises NonFiniteError: for the first value that is NaN or infinite.
    """
    for name, value in zip(names, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} is {value} but must be finite; the step was not taken")


def check_step(answer: Any) -> None:
    """Check that a step returned five values, the last of them a dictionary.

    :raises ValueError: it did not; the message says what it returned.
    """
    if isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], dict):
        return
    if not isinstance(answer, tuple):
        got = type(answer).__name__
    elif len(answer) == 4:
        got = "4 values, as in the old Gym (observation, reward, done, info): split done in two"
    elif len(answer) == 6:
        got = '6 values, as in safety_gymnasium, whose cost is a value of its own: put it in info["cost"]'
    elif len(answer) != 5:
        got = f"{len(answer)} values"
    else:
        got = f"an info of type {type(answer[4]).__name__}"
    raise ValueError(f"step must return (observation, reward, terminated, truncated, info: dict), got {got}")


def check_reset(answer: Any) -> None:
    """Check that a reset returned an observation and a dictionary.

    :raises ValueError: it did not; the message says what it returned.
    """
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
        return
    if not isinstance(answer, tuple):
        got = f"an observation without info, of type {type(answer).__name__}"
    elif len(answer) != 2:
        got = f"{len(answer)} values"
    else:
        got = f"an info of type {type(answer[1]).__name__}"
    raise ValueError(f"reset must return (observation, info: dict), got {got}")
