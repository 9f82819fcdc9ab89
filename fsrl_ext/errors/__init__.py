"""The exceptions, and the checks of settings, arguments, answers and losses that all rooms share."""

from fsrl_ext.errors.answers import check_reset, check_step
from fsrl_ext.errors.checks import check_argument, check_fields, check_types, checked
from fsrl_ext.errors.exceptions import (
    ArgumentTypeError,
    CheckpointError,
    CostCountError,
    NoCheckpointError,
    NonFiniteError,
    RunFolderError,
    RunStoppedError,
    UnknownPolicyError,
)
from fsrl_ext.errors.finite import check_all_finite, check_finite
from fsrl_ext.errors.kinds import shown

__all__ = [
    "ArgumentTypeError",
    "CheckpointError",
    "CostCountError",
    "NoCheckpointError",
    "NonFiniteError",
    "RunFolderError",
    "RunStoppedError",
    "UnknownPolicyError",
    "check_all_finite",
    "check_argument",
    "check_fields",
    "check_finite",
    "check_reset",
    "check_step",
    "check_types",
    "checked",
    "shown",
]
