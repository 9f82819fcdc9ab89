"""Register a user's own family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from fsrl_ext.env.meta.family import DEFAULT_TASK_SEED, Family, add_family, list_families
from fsrl_ext.env.meta.parameters import Distribution
from fsrl_ext.env.tasks import list_tasks, register_task
from fsrl_ext.errors import checked

# A level is one digit of the id.
LAST_LEVEL = 9


@dataclass(frozen=True)
class FamilyEntry:
    """Builds the tasks of one level of a user's family; Gymnasium's entry point of that level's id.

    :param family: the family.
    :param level: one of the family's levels.
    :param build: see `register_family`.
    """

    family: Family
    level: int
    build: Callable[..., gymnasium.Env]

    def __call__(self, *, task_seed: int | None = None, **kwargs: Any) -> gymnasium.Env:
        """Draw the parameters, build an environment, and set its `task_seed` and `task_parameters`.

        :raises ValueError: the seed is out of range.
        :raises TypeError: `build` did not return an environment.
        """
        seed = DEFAULT_TASK_SEED if task_seed is None else task_seed
        parameters = self.family.parameters(self.level, seed)
        env = self.build(parameters, **kwargs)
        if not isinstance(env, gymnasium.Env):
            raise TypeError(
                f"build of family {self.family.name} must return a gymnasium.Env, got {type(env).__name__}"
            )
        env.unwrapped.task_seed = int(seed)  # type: ignore[attr-defined]
        env.unwrapped.task_parameters = parameters  # type: ignore[attr-defined]
        return env


@checked(at_least_one=("num_costs", "max_episode_steps"), own=("levels",))
def register_family(
    name: str,
    build: Callable[..., gymnasium.Env],
    levels: Mapping[int, Mapping[str, Distribution]],
    *,
    num_costs: int | None = None,
    can_terminate: bool | None = None,
    max_episode_steps: int | None = None,
) -> list[str]:
    """Register a family of tasks: one id per level, whose tasks `make(id, task_seed=...)` draws.

    :param name: a new name; the ids are f"{name}{level}-v0".
    :param build: builds the environment of one task from its `Parameters` and the given keyword arguments of
        `make`, for example `render_mode`. All tasks of a family should have the same spaces. The steps must
        carry `info["cost"]`.
    :param levels: for each level, the distributions by parameter name, in the order in which they are drawn.
        By convention level 0 is one fixed task, level 1 is for meta-training, and level 2 lies outside of
        level 1 (see `held_out_suite`).
    :param num_costs: see `register_task`, which also explains the remaining parameters.
    :return: the ids in the order of the levels.
    :raises ValueError: the name is taken or does not end in a letter; there are no levels, or a level is no
        integer in [0, 9]; or a parameter has no distribution, or a distribution that cannot be drawn.
    """
    if not name or not name[-1].isalpha():
        raise ValueError(f"name must end in a letter, because levels are appended to it, got {name!r}")
    if name in list_families():
        raise ValueError(f"name must be new, got {name!r}, which is registered")
    if not levels or any(type(level) is not int or not 0 <= level <= LAST_LEVEL for level in levels):
        raise ValueError(
            f"levels must have at least one key, all integers in [0, {LAST_LEVEL}], got {list(levels)}"
        )
    for level, distributions in levels.items():
        for parameter, distribution in distributions.items():
            if not isinstance(distribution, Distribution):
                raise ValueError(
                    f"levels[{level}][{parameter!r}] must be a distribution such as Fixed or Uniform, "
                    f"got {distribution!r}"
                )
    family = Family(name=name, levels={level: dict(levels[level]) for level in sorted(levels)})
    ids = [family.id(level) for level in family.levels]
    taken = {task.id for task in list_tasks()} | set(gymnasium.registry)
    if not taken.isdisjoint(ids):
        raise ValueError(f"name must give new ids, got {name!r}: {sorted(taken & set(ids))} are registered")
    for level in family.levels:
        family.parameters(level, DEFAULT_TASK_SEED)  # a level that cannot be drawn fails here
    for level, id in zip(family.levels, ids, strict=True):
        register_task(
            id,
            entry_point=FamilyEntry(family, level, build),
            num_costs=num_costs,
            can_terminate=can_terminate,
            max_episode_steps=max_episode_steps,
        )
    add_family(family)
    return ids
