"""Draw tasks of families for meta-learning: by seed, from held-out suites, and from users' own families.

The files in the order in which to read them:

- `parameters`: the values of a task, and the distributions from which they are drawn;
- `family`: a family's levels, and the parameters that a task seed draws;
- `task`: one task as a value, and the distribution of the tasks of one level;
- `held_out`: suites of tasks that no training draws;
- `safety_families`: the numbers of the library's own families on safety-gymnasium's robots;
- `circle_task`, `button_task`, `navigation`: these families' simulators;
- `registration`: users' own families.

Only the three simulator files need safety-gymnasium, and `make` imports them.
"""

from fsrl_ext.env.meta import safety_families as _safety_families  # noqa: F401  (adds the families)
from fsrl_ext.env.meta.family import (
    DEFAULT_TASK_SEED,
    Family,
    FamilyError,
    UnknownFamilyError,
    find_family,
    list_families,
)
from fsrl_ext.env.meta.held_out import held_out_suite
from fsrl_ext.env.meta.parameters import (
    Choice,
    Computed,
    Distribution,
    Fixed,
    Integers,
    Parameters,
    Uniform,
)
from fsrl_ext.env.meta.registration import register_family
from fsrl_ext.env.meta.task import TaskDescription, TaskDistribution, describe

__all__ = [
    "DEFAULT_TASK_SEED",
    "Choice",
    "Computed",
    "Distribution",
    "Family",
    "FamilyError",
    "Fixed",
    "Integers",
    "Parameters",
    "TaskDescription",
    "TaskDistribution",
    "Uniform",
    "UnknownFamilyError",
    "describe",
    "find_family",
    "held_out_suite",
    "list_families",
    "register_family",
]
