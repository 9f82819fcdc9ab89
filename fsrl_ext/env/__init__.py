"""Environments under one contract: five-tuple steps, float32 observations, a cost on every step."""

from fsrl_ext.env.contract import CostEnv, CostError, CostReader, CostWrapper, MissingCostError
from fsrl_ext.env.meta.registration import register_family
from fsrl_ext.env.registry import (
    SuiteNotInstalledError,
    UnknownTaskError,
    can_terminate,
    env_fn,
    list_tasks,
    make,
    register_task,
    time_limit,
)
from fsrl_ext.env.suite_tasks import TaskInfo

__all__ = [
    "CostEnv",
    "CostError",
    "CostReader",
    "CostWrapper",
    "MissingCostError",
    "SuiteNotInstalledError",
    "TaskInfo",
    "UnknownTaskError",
    "can_terminate",
    "env_fn",
    "list_tasks",
    "make",
    "register_family",
    "register_task",
    "time_limit",
]
