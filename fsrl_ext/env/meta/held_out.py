"""Return suites of tasks that no training draws, inside of the training range and outside of it.

`held_out.json` lists the suites of the library's own families, once per kind of task for all robots. After a
change of the families, write the text of `suites_as_text` into that file; a test compares the two.
"""

import json
from importlib import resources
from typing import Any, Literal

from fsrl_ext.env.meta.family import FIRST_HELD_OUT_SEED, Family, find_family
from fsrl_ext.env.meta.parameters import Parameters
from fsrl_ext.env.meta.safety_families import AGENTS, KINDS
from fsrl_ext.env.meta.task import TaskDescription, describe

Where = Literal["inside", "outside"]
# The level from which each suite is drawn, and the number of tasks of a suite.
SUITE_LEVELS = {"inside": 1, "outside": 2}
SUITE_SIZE = 20
_FILE = resources.files(__package__).joinpath("held_out.json")


def held_out_suite(family: str, where: Where = "inside") -> list[TaskDescription]:
    """Return the 20 held-out tasks of a family inside or outside of the range of meta-training.

    The task seeds are 2**31 and the following numbers; `TaskDistribution` draws from seeds below 2**31. The
    tasks of the library's own families come from the file, those of a user's family are drawn.

    :param family: the family's name.
    :param where: "inside" for tasks of level 1, or "outside" for tasks of level 2.
    :raises ValueError: no family has the name, `where` is unknown, or the family lacks the level.
    """
    if where not in SUITE_LEVELS:
        raise ValueError(f"where must be one of {sorted(SUITE_LEVELS)}, got {where!r}")
    known = find_family(family)
    if known.draws not in KINDS:
        return _drawn(known, where)
    suite = json.loads(_FILE.read_text(encoding="utf-8"))[known.draws][where]
    level: int = suite["level"]
    return [
        TaskDescription(
            family=family,
            level=level,
            id=known.id(level),
            task_seed=task["task_seed"],
            parameters=Parameters(task["parameters"]),
        )
        for task in suite["tasks"]
    ]


def _drawn(family: Family, where: str) -> list[TaskDescription]:
    level = SUITE_LEVELS[where]
    return [describe(family, level, FIRST_HELD_OUT_SEED + number) for number in range(SUITE_SIZE)]


def _suite_as_dict(kind: str, where: str) -> dict[str, Any]:
    tasks = _drawn(find_family(f"Safety{AGENTS[0]}{kind}"), where)
    rows = [{"task_seed": task.task_seed, "parameters": dict(task.parameters)} for task in tasks]
    return {"level": SUITE_LEVELS[where], "tasks": rows}


def suites_as_text() -> str:
    """Return the text that `held_out.json` must contain."""
    suites = {kind: {where: _suite_as_dict(kind, where) for where in SUITE_LEVELS} for kind in KINDS}
    return json.dumps(suites, indent=1, allow_nan=False) + "\n"
