"""A family of tasks: parameters, and per level the distributions they are drawn from."""

import difflib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsrl_ext.env.meta.parameters import Distribution, Parameters, contains, draw_parameters, stream

# What `make` draws a task with that is not told otherwise.
DEFAULT_TASK_SEED = 0
# Task seeds below are for training, the others for held-out suites.
FIRST_HELD_OUT_SEED = 2**31
SEED_END = 2**32


class UnknownFamilyError(ValueError):
    """No family of that name; the message names the nearest ones."""


def checked_seed(name: str, seed: Any) -> int:
    """A seed as an integer.

    :param name: the argument's name, for the error.
    :raises ValueError: it is no integer of [0, 2**32).
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
    """Tasks that differ in parameters only.

    :param name: the ids of its environments are f"{name}{level}-v0".
    :param levels: for each level the distributions by parameter, in the order they are drawn. By
        convention level 0 is fixed, 1 is for meta-training, and 2 lies outside of 1.
    :param draws: families with the same `draws` draw the same parameters from the same task seed, if
        their distributions are the same; None for the name.
    """

    name: str
    levels: Mapping[int, Mapping[str, Distribution]]
    draws: str | None = None

    def id(self, level: int) -> str:
        """What `make` calls the tasks of a level.

        :raises ValueError: there is no such level.
        """
        self._of(level)
        return f"{self.name}{level}-v0"

    def parameters(self, level: int, task_seed: int) -> Parameters:
        """The task that a seed draws; at every level, on every machine, always the same one.

        :param task_seed: in [0, 2**32).
        :raises ValueError: there is no such level, or the seed is out of range.
        """
        distributions = self._of(level)
        task_seed = checked_seed("task_seed", task_seed)
        return draw_parameters(distributions, stream(self.draws or self.name, level, task_seed))

    def contains(self, level: int, parameters: Mapping[str, Any]) -> bool:
        """Whether a level's distributions can give these parameters.

        :raises ValueError: there is no such level.
        """
        return contains(self._of(level), parameters)

    def _of(self, level: int) -> Mapping[str, Distribution]:
        if level not in self.levels:
            raise ValueError(f"level must be one of {sorted(self.levels)} for {self.name}, got {level!r}")
        return self.levels[level]


_families: dict[str, Family] = {}


def add_family(family: Family) -> None:
    """Let `find_family` know a family."""
    _families[family.name] = family


def find_family(name: str) -> Family:
    """The family of that name.

    :raises UnknownFamilyError: there is none.
    """
    if name not in _families:
        near = difflib.get_close_matches(name, _families, n=3, cutoff=0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "see fsrl_ext.env.meta.list_families()"
        raise UnknownFamilyError(f"unknown family {name!r}; {hint}")
    return _families[name]


def list_families() -> list[str]:
    """The names of all families: the package's, then the user's."""
    return list(_families)
