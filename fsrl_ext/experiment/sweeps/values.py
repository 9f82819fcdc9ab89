"""The values of a study's settings and its seeds, from Python, a study file or text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fsrl_ext.errors import shown
from fsrl_ext.experiment.settings import Separator, Setting, as_text

SEPARATOR: Separator = "/"
"""What stands between the numbers of one value: ``hidden_sizes=128/128``. A comma separates values."""
MAX_RUNS = 10_000
"""The most runs, and the most seeds, of a study."""

_SEED = re.compile(r"(\d+)(?:-(\d+))?")


def split_list(text: str) -> list[str]:
    """The parts of a text that commas separate, without blanks around them; none of a blank text."""
    return [x.strip() for x in text.split(",")] if text.strip() else []


def axis(setting: Setting, given: Any) -> list[Any]:
    """The values that a study gives to a setting, in their order.

    :param given: a list has several values; anything else is one value, text and tuples too. Within a list,
        a list is one value of several numbers.
    :raises ValueError: for an empty list, a repeated value, or a value of another type.
    """
    parts = given if isinstance(given, list) else [given]
    if not parts:
        raise ValueError(f"{setting.name} must have at least one value, got an empty list")
    values: list[Any] = []
    for part in parts:
        value = _value(setting, part)
        if value in values:
            hint = ""
            if setting.has_several:
                hint = "; several numbers of one value are written with slashes, such as 128/128"
            raise ValueError(
                f"{setting.name} must have different values, got {as_text(value, SEPARATOR)} twice{hint}"
            )
        values.append(value)
    return values


def _value(setting: Setting, given: Any) -> Any:
    """One value of the setting's type; numbers go through their text, so ``10`` and ``10.0`` are equal."""
    if isinstance(given, list):
        given = tuple(given)
    if given is None or isinstance(given, str | bool | int | float | tuple):
        return setting.parse(as_text(given, SEPARATOR), separator=SEPARATOR)
    return given


def parse_seeds(given: int | str | Sequence[int | str]) -> tuple[int, ...]:
    """The seeds in a number, a text such as ``"0-4"`` or ``"0,2,5"``, or a list of numbers and such texts.

    :raises ValueError: for anything else, a range that goes down, a repeated seed, or none at all.
    """
    parts: Iterable[Any] = [given]
    if isinstance(given, str):
        parts = split_list(given)
    elif isinstance(given, Sequence):
        parts = given
    seeds: list[int] = []
    for part in parts:
        seeds += _seeds_of(part)
        if len(seeds) > MAX_RUNS:
            raise ValueError(f"seeds must be at most {MAX_RUNS:,}, got {shown(given)}")
    if not seeds:
        raise ValueError(f"seeds must have at least one seed, got {shown(given)}")
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ValueError(f"seeds must be different, got {twice} twice")
    return tuple(seeds)


def _seeds_of(part: Any) -> Sequence[int]:
    if isinstance(part, int) and not isinstance(part, bool):
        return [part]
    match = _SEED.fullmatch(part.strip()) if isinstance(part, str) else None
    if match is None:
        raise ValueError(f"seeds must be whole numbers >= 0, such as 0-4 or 0,2,5, got {shown(part)}")
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first:
        raise ValueError(f"seeds must be ranges from a smaller to a larger seed, got {part!r}")
    if last - first >= MAX_RUNS:
        raise ValueError(f"seeds must be at most {MAX_RUNS:,}, got {part!r}")
    return range(first, last + 1)
