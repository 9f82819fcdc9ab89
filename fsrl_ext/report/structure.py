"""What a file must consist of, as tables: which parts there are, and what each may be.

A rule is one of these:

- a dictionary of rules by name: exactly these parts must be there, apart from those whose name ends in ``?``,
  which may be absent;
- a list of one rule: a list (or tuple) whose entries all follow the rule;
- :class:`Each`: a dictionary with any names, whose entries all follow the rule;
- :class:`Maybe`: ``None``, or what the rule says;
- :class:`Choice`: what a function of the dictionary says;
- :class:`Value`: a single value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Value:
    """A single value: what is allowed, in words, and the test of it, which takes values of any type."""

    allowed: str
    test: Callable[[Any], bool]


@dataclass(frozen=True)
class Each:
    """A dictionary with any names, whose entries all follow one rule."""

    rule: Rule


@dataclass(frozen=True)
class Maybe:
    """``None``, or what the rule says."""

    rule: Rule


@dataclass(frozen=True)
class Choice:
    """A dictionary that tells by its entries which rule it follows."""

    rule_of: Callable[[dict[Any, Any]], Rule]


Rule: TypeAlias = "Value | Each | Maybe | Choice | dict[str, Any] | list[Any]"


def is_number(value: Any) -> bool:
    """Whether a value is a number, and neither a truth value nor NaN."""
    return type(value) in (int, float) and not math.isnan(value)


def whole(least: int, most: int, name: str = "a whole number") -> Value:
    """The rule for a whole number from ``least`` to ``most``."""
    return Value(f"{name} from {least} to {most}", lambda x: type(x) is int and least <= x <= most)


ANY = Value("anything", lambda x: True)
TEXT = Value("text", lambda x: type(x) is str)
BOOL = Value("true or false", lambda x: type(x) is bool)
NUMBER = Value("a number", is_number)
FINITE = Value("a finite number", lambda x: is_number(x) and math.isfinite(x))
SHARE = Value("a number from 0 to 1", lambda x: is_number(x) and 0 <= x <= 1)
NOT_NEGATIVE = Value("a number >= 0", lambda x: is_number(x) and x >= 0)
COUNT = whole(0, 10**15)


def check(value: Any, rule: Rule, part: str = "") -> None:
    """Checks a value by a rule.

    :param part: what the message calls the value.
    :raises ValueError: for the first part that is missing, unknown or not what its rule says, naming it.
    """
    if isinstance(rule, Maybe):
        if value is not None:
            check(value, rule.rule, part)
    elif isinstance(rule, Value):
        if not rule.test(value):
            raise ValueError(f"{part} must be {rule.allowed}, got {short(value)}")
    elif isinstance(rule, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{part} must be a list, got {short(value)}")
        for i, entry in enumerate(value):
            check(entry, rule[0], f"{part}[{i}]")
    else:
        if not isinstance(value, dict):
            raise ValueError(f"{part or 'the content'} must be a dictionary, got {short(value)}")
        if isinstance(rule, Choice):
            check(value, rule.rule_of(value), part)
            return
        rules = dict.fromkeys(value, rule.rule) if isinstance(rule, Each) else _present(value, rule, part)
        for name, entry in value.items():
            check(entry, rules[name], _inner(part, name))


def _present(value: dict[Any, Any], rules: dict[str, Any], part: str) -> dict[str, Any]:
    """The rules of the parts that are there.

    :raises ValueError: for a part that is missing, or that no rule is about.
    """
    known = {name.removesuffix("?"): rule for name, rule in rules.items()}
    for name in known:
        if name not in value and name in rules:
            raise ValueError(f"{_inner(part, name)} is missing")
    for name in value:
        if name not in known:
            raise ValueError(f"{_inner(part, name)} is no part of it")
    return known


def _inner(part: str, name: Any) -> str:
    return f"{part}.{name}" if part else str(name)


def short(value: Any) -> str:
    """A value in at most some 60 characters on one line."""
    if isinstance(value, dict | list | tuple) and len(value) > 4:
        return f"{'a dictionary' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    if type(value) is int and abs(value) > 10**30:
        return "a number of more than 30 digits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
