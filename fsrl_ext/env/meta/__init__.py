"""Families of tasks for meta-learning: seeded draws, held-out suites, and the user's own families."""

from fsrl_ext.env.meta import safety_families as _safety_families  # noqa: F401  (adds the families)
from fsrl_ext.env.meta.family import DEFAULT_TASK_SEED, Family, UnknownFamilyError, find_family, list_families
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
