"""Checks of settings and arguments, each of which names it, its value and what is allowed.

Types are read from the annotations; ranges and shapes are listed by name.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fsrl_ext.errors.exceptions import ArgumentTypeError
from fsrl_ext.errors.kinds import argument_kinds, described, field_kinds, has_nan, matcher, plain_value, shown
from fsrl_ext.errors.ranges import check_range
from fsrl_ext.errors.shapes import check_shapes, parsed_shape


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
            check_range(name, getattr(config, name), rule)
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
    for name, kind in field_kinds(typing.cast(Any, type(config))).items():
        value = getattr(config, name)
        plain = plain_value(value, kind)
        if not matcher(kind)(plain) or has_nan(plain):
            raise ArgumentTypeError(f"{name} must be {described(kind)}, got {shown(value)}")
        if plain is not value:
            object.__setattr__(config, name, plain)


def check_argument(name: str, value: Any, kind: Any, rule: str | None = None) -> None:
    """Checks one value, which is no field and no argument of a decorated function.

    :param kind: what an annotation would say, such as ``int`` or ``float | None``.
    :param rule: one of the rules of :func:`check_fields`; ``None`` for any value of that kind.
    :raises ValueError: if the value is not allowed; the message names it, the value and what is allowed.
    """
    if not matcher(kind)(value):
        raise ArgumentTypeError(f"{name} must be {described(kind)}, got {shown(value)}")
    if rule is not None:
        check_range(name, value, rule)


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
    wanted = {name: parsed_shape(text) for name, text in (shapes or {}).items()}

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
                kinds = argument_kinds(function)
                names = [x for x in places if x in kinds and x not in own]
                matchers.update((x, (matcher(kinds[x]), kinds[x])) for x in names)
            given = {**dict(zip(places, args, strict=False)), **kwargs}
            for name, value in given.items():
                if name in matchers and not matchers[name][0](value):
                    allowed = described(matchers[name][1])
                    raise ArgumentTypeError(f"{name} must be {allowed}, got {shown(value)}")
            for name, rule in ranges:
                if name in given:
                    check_range(name, given[name], rule)
            if wanted:
                check_shapes(given, wanted)
            return function(*args, **kwargs)

        return typing.cast(F, checking)

    return decorate
