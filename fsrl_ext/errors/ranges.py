"""Ranges of numbers: what each rule allows, in words and as a test."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

from fsrl_ext.errors.kinds import is_sequence, shown

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


def check_range(name: str, value: Any, rule: str) -> None:
    """:raises ValueError: for a number, or one of several, that a rule does not allow."""
    allowed, is_allowed = _RANGES[rule]
    several = is_sequence(value)
    for number in value if several else (value,):
        if number is None or (isinstance(number, numbers.Real) and is_allowed(number)):
            continue
        if number == math.inf and allowed in ("> 0", ">= 0"):
            allowed += " and finite"
        elif isinstance(number, numbers.Integral) and int(number) >= _LARGEST and rule != "seed":
            allowed += " and < 2**63"
        raise ValueError(f"{name} must be {allowed}{' each' if several else ''}, got {shown(value)}")
