"""Describe one task of a family as a value, and the distribution from which tasks are drawn."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium

from fsrl_ext.env.builders import EnvFn, env_fn
from fsrl_ext.env.meta.family import FIRST_HELD_OUT_SEED, Family, checked_seed, find_family
from fsrl_ext.env.meta.parameters import Parameters, stream
from fsrl_ext.env.registry import make


@dataclass(frozen=True, kw_only=True)
class TaskDescription:
    """Describes one task by the arguments that `make` needs and by its parameters.

    `describe` makes instances, which can be hashed, compared and pickled.

    :param family: the family's name.
    :param level: one of the family's levels.
    :param id: the environment's id.
    :param task_seed: the seed that draws the task.
    :param parameters: the drawn parameters.
    """

    family: str
    level: int
    id: str
    task_seed: int
    parameters: Parameters

    def make(self, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
        """Build the environment.

        :param kwargs: see `fsrl_ext.env.make`.
        :raises ValueError: the task seed draws other parameters than the description has, because the family
            has changed since.
        """
        env = make(self.id, render_mode, task_seed=self.task_seed, **kwargs)
        made = env.unwrapped.task_parameters  # type: ignore[union-attr]
        if made != self.parameters:
            env.close()
            raise ValueError(
                f"parameters must be what task_seed {self.task_seed} draws from {self.id} "
                f"({made}), got {self.parameters}"
            )
        return env

    def env_fn(self, render_mode: str | None = None, **kwargs: Any) -> EnvFn:
        """Return a function without arguments that builds the environment, for vector workers."""
        return env_fn(self.id, render_mode, task_seed=self.task_seed, **kwargs)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as numbers, strings and one dictionary, for JSON and logs."""
        return {
            "family": self.family,
            "level": self.level,
            "id": self.id,
            "task_seed": self.task_seed,
            "parameters": dict(self.parameters),
        }


def describe(family: str | Family, level: int, task_seed: int) -> TaskDescription:
    """Return the task that a seed draws from a family.

    :param family: a family or the name of one.
    :param level: one of the family's levels.
    :param task_seed: in [0, 2**32).
    :raises ValueError: no family has the name, the family lacks the level, or the seed is out of range.
    """
    known = find_family(family) if isinstance(family, str) else family
    return TaskDescription(
        family=known.name,
        level=level,
        id=known.id(level),
        task_seed=checked_seed("task_seed", task_seed),
        parameters=known.parameters(level, task_seed),
    )


@dataclass(frozen=True)
class TaskDistribution:
    """Draws the tasks of one level of a family in an endless order; equal arguments give equal tasks.

    The tasks of one distribution have different task seeds, and no task belongs to a held-out suite. All
    robots of one kind of task get the same tasks.

    :param family: the family's name without level, for example "SafetyPointStcircle".
    :param level: one of the family's levels; 1 is for meta-training.
    :param seed: the seed of the order of tasks, in [0, 2**32).
    :raises ValueError: no family has the name, the family lacks the level, or the seed is out of range.
    """

    family: str
    level: int = field(default=1, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        find_family(self.family).id(self.level)
        checked_seed("seed", self.seed)

    @property
    def _draws(self) -> str:
        return find_family(self.family).draws or self.family

    def draw(self, count: int, *, start: int = 0) -> list[TaskDescription]:
        """Return the tasks number `start` to `start + count - 1`; a second call returns the same tasks.

        :param count: number of tasks, at least 1.
        :param start: number of the first task, at least 0.
        :raises ValueError: `count` or `start` is too small.
        """
        if count < 1:
            raise ValueError(f"count must be >= 1, got {count}")
        if start < 0:
            raise ValueError(f"start must be >= 0, got {start}")
        first = int(stream(f"order of {self._draws}", self.level, self.seed).random_raw())
        seeds = ((first + number) % FIRST_HELD_OUT_SEED for number in range(start, start + count))
        return [describe(self.family, self.level, task_seed) for task_seed in seeds]
