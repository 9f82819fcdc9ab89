"""Which value a setting has if the user does not set it, and where the value comes from."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.defaults import TUNED, matches, preset_settings, task_rows
from fsrl_ext.experiment.registry import algorithm
from fsrl_ext.experiment.settings import list_settings


@dataclass(frozen=True)
class Default:
    """The default of one setting.

    :param value: what :func:`~fsrl_ext.experiment.make_config` takes.
    :param source: the place that the value comes from: the ``policy`` (its classes and its row of the
        registry, for every task), a row for this ``task``, or the ``preset``.
    :param elsewhere: without a task, the tasks whose rows have another value, and these values.
    """

    value: Any
    source: Literal["policy", "task", "preset"] = "policy"
    elsewhere: dict[str, Any] = field(default_factory=dict)


def explained_defaults(policy: str, task: str | None = None, *, preset: str = TUNED) -> dict[str, Default]:
    """The defaults of an algorithm's settings by name; settings that must be given are left out.

    With a task they are the values that a run has to which no setting is given.

    :param task: an environment id, or for meta-learners the name of a family; ``None`` for any.
    :raises ValueError: for an unknown policy, family or preset.
    """
    row, known = algorithm(policy), list_settings(policy)
    values: dict[str, Any] = {}
    for cls in (ExperimentConfig, row.config, row.training):
        for x in dataclasses.fields(cls):
            if x.default is not dataclasses.MISSING:
                values[x.name] = x.default
            elif x.default_factory is not dataclasses.MISSING:
                values[x.name] = x.default_factory()
    values |= row.defaults
    defaults = {name: Default(value) for name, value in values.items() if name in known}
    judged = None if task is None else row.training.judged_task(task)
    for suite, pattern, settings in task_rows(policy, list(known)):
        for name, value in settings.items():
            before = defaults.get(name)
            if (suite, pattern) == ("*", "*"):
                defaults[name] = Default(value)
            elif judged is not None:
                if matches(judged, suite, pattern) and (before is None or before.value != value):
                    defaults[name] = Default(value, "task")
            elif before is not None and (before.value != value or before.elsewhere):
                tasks = f"{suite} tasks" if pattern == "*" else pattern
                defaults[name] = dataclasses.replace(before, elsewhere={**before.elsewhere, tasks: value})
    if not row.constrained:
        defaults["cost_limit"] = Default((math.inf,))
    for name, value in preset_settings(policy, preset).items():
        defaults[name] = Default(value, "preset")
    return defaults
