"""Build environments under one contract: five-tuple steps, float32 observations, a cost on every step.

The files in the order in which to read them:

- `cost_reader`: the cost of a step as a number, as several numbers, or by name;
- `observations`: observations as float32, and those of several parts as one vector;
- `contract`: what `make` promises of every environment, and the classes that keep the promise;
- `known_optimum`, `two_costs`, `discrete_optimum`: toy tasks whose best policy within the limits is known;
- `suite_tasks`: the tasks of all suites as a table;
- `action_repeat`: actions that last for several steps;
- `tasks`: users' own tasks, and the list of all tasks;
- `registry`: `make` by name, and `make_joint`;
- `builders`: their arguments, for the processes of vector environments;
- `check/`: whether an environment keeps the contract, and what mends it;
- `bullet`: the adapter of bullet-safety-gym;
- `safety_gymnasium/`: the adapter of safety-gymnasium, and its fast steps and resets;
- `agents/`: tasks of several agents;
- `meta/`: families of tasks for meta-learning.

The adapters use `quiet` (drops a package's output), `legacy_random` (a random stream per instance) and
`display` (whether the machine can draw). Importing `fsrl_ext.env` loads no simulator; `make` loads the
simulator that its task needs.
"""

import fsrl_ext.gymnasium_import  # noqa: F401 - before anything else imports gymnasium
from fsrl_ext.env.action_repeat import ActionRepeat
from fsrl_ext.env.builders import env_fn
from fsrl_ext.env.check import Finding, check_env
from fsrl_ext.env.contract import CostEnv, CostWrapper
from fsrl_ext.env.cost_reader import ContractError, CostError, CostReader, MissingCostError, NamedCostReader
from fsrl_ext.env.known_optimum import KnownOptimumEnv
from fsrl_ext.env.meta.registration import register_family
from fsrl_ext.env.registry import SuiteNotInstalledError, make, make_joint
from fsrl_ext.env.suite_tasks import TaskInfo
from fsrl_ext.env.tasks import (
    TaskImportError,
    UnknownTaskError,
    can_terminate,
    list_tasks,
    register_task,
    time_limit,
)

__all__ = [
    "ActionRepeat",
    "ContractError",
    "CostEnv",
    "CostError",
    "CostReader",
    "CostWrapper",
    "Finding",
    "KnownOptimumEnv",
    "MissingCostError",
    "NamedCostReader",
    "SuiteNotInstalledError",
    "TaskImportError",
    "TaskInfo",
    "UnknownTaskError",
    "can_terminate",
    "check_env",
    "env_fn",
    "list_tasks",
    "make",
    "make_joint",
    "register_family",
    "register_task",
    "time_limit",
]
