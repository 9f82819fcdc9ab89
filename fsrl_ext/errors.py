"""The library's own errors, and the checks of settings and numbers that every room shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class NonFiniteError(FloatingPointError):
    """A NaN or infinity came from an environment, a network or a loss.

    Raised *before* anything is stored or any parameter is changed, so what was there stays usable.
    """


class CheckpointError(ValueError):
    """A checkpoint is damaged, foreign or does not fit what it is loaded into."""


class RunFolderError(ValueError):
    """A run folder is missing, incomplete or already taken."""


def check_fields(
    config: object,
    *,
    positive: Sequence[str] = (),
    non_negative: Sequence[str] = (),
    unit_interval: Sequence[str] = (),
    below_one: Sequence[str] = (),
    at_least_one: Sequence[str] = (),
    choices: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Checks a config's fields by name.

    :raises ValueError: naming the field, its value and what is allowed.
    """
    rules: list[tuple[Sequence[str], str, Callable[[Any], bool]]] = [
        (positive, "> 0", lambda x: x > 0 and math.isfinite(x)),
        (non_negative, ">= 0", lambda x: x >= 0),
        (unit_interval, "in (0, 1]", lambda x: 0 < x <= 1),
        (below_one, "in [0, 1)", lambda x: 0 <= x < 1),
        (at_least_one, "a whole number >= 1", lambda x: x >= 1 and x == int(x)),
    ]
    for names, allowed, is_allowed in rules:
        for name in names:
            value = getattr(config, name)
            if not is_allowed(value):
                raise ValueError(f"{name} must be {allowed}, got {value}")
    for name, values in (choices or {}).items():
        value = getattr(config, name)
        if value not in values:
            raise ValueError(f"{name} must be one of {tuple(values)}, got {value!r}")


def check_finite(loss: Tensor, name: str) -> None:
    """:raises NonFiniteError: if a loss is NaN or infinite, before any optimiser uses it."""
    if not math.isfinite(value := loss.item()):
        raise NonFiniteError(f"{name} is {value}; the parameters were left as they were")


def check_all_finite(values: Tensor, names: Sequence[str]) -> None:
    """:raises NonFiniteError: naming the first of the values ``[len(names)]`` that is NaN or infinite."""
    for name, value in zip(names, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} is {value}; the parameters were left as they were")
