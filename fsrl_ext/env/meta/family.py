"""Define a family of tasks: its parameters and, for each level, the distributions that draw them."""

import difflib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsrl_ext.env.meta.parameters import Distribution, Parameters, contains, draw_parameters, stream

# The task seed that `make` uses where none is given.
DEFAULT_TASK_SEED = 0
# Task seeds below FIRST_HELD_OUT_SEED are for training, the others for held-out suites.
FIRST_HELD_OUT_SEED = 2**31
SEED_END = 2**32


class FamilyError(ValueError):
    """Reports that a family is asked for by a name that none has, or stands where one task is needed."""


class UnknownFamilyError(FamilyError):
    """Reports a name that no family has; the message names the nearest names."""


def checked_seed(name: str, seed: Any) -> int:
    """Return a seed as an integer.

    :param name: the argument's name in the error message.
    :raises ValueError: the seed is no integer in [0, 2**32).
    """
    try:
        number = None if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = None
    if number is None or not 0 <= number < SEED_END:
        raise ValueError(f"{name} must be an integer in [0, 2**32), got {seed!r}")
    return number


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describes tasks that differ only in their parameters.

    :param name: the family's name; the ids of its environments are f"{name}{level}-v0".
    :param levels: for each level, the distributions by parameter name, in the order in which they are drawn.
        By convention level 0 is one fixed task, level 1 is for meta-training, and level 2 lies outside of
        level 1.
    :param draws: the name of the random stream; None stands for `name`. Families with the same `draws` and
        the same distributions draw the same parameters from the same task seed.
    """

    name: str
    levels: Mapping[int, Mapping[str, Distribution]]
    draws: str | None = None

    def id(self, level: int) -> str:
        """Return the id under which `make` builds the tasks of a level.

        :raises ValueError: the family does not have the level.
        """
        self._of(level)
        return f"{self.name}{level}-v0"

    def parameters(self, level: int, task_seed: int) -> Parameters:
        """Return the parameters that a task seed draws at a level; they are the same on every machine.

        :param task_seed: in [0, 2**32).
        :raises ValueError: the family does not have the level, or the seed is out of range.
        """
        distributions = self._of(level)
        task_seed = checked_seed("task_seed", task_seed)
        return draw_parameters(distributions, stream(self.draws or self.name, level, task_seed))

    def contains(self, level: int, parameters: Mapping[str, Any]) -> bool:
        """Tell whether a level's distributions can give these parameters.

        :raises ValueError: the family does not have the level.
        """
        return contains(self._of(level), parameters)

    def _of(self, level: int) -> Mapping[str, Distribution]:
        if level not in self.levels:
            raise ValueError(f"level must be one of {sorted(self.levels)} for {self.name}, got {level!r}")
        return self.levels[level]


_families: dict[str, Family] = {}


def add_family(family: Family) -> None:
    """Add a family to those that `find_family` returns."""
    _families[family.name] = family


def find_family(name: str) -> Family:
    """Return the family of a name.

    :raises UnknownFamilyError: no family has the name.
    """
    if name not in _families:
        near = difflib.get_close_matches(name, _families)
        hint = f"did you mean {', '.join(near)}?" if near else "see fsrl_ext.env.meta.list_families()"
        raise UnknownFamilyError(f"unknown family {name!r}; {hint}")
    return _families[name]


def list_families() -> list[str]:
    """Return the names of all families: the library's, then the users'."""
    return list(_families)
