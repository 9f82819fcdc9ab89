"""The exceptions that all rooms share."""

from __future__ import annotations


class NonFiniteError(FloatingPointError):
    """An environment, a network or a loss gave NaN or infinity.

    The error is raised before the value is stored and before it changes a parameter, so buffers, networks and
    optimisers stay usable.
    """


class CheckpointError(ValueError):
    """A checkpoint is damaged, is of another program, or does not fit the policy that loads it."""


class NoCheckpointError(CheckpointError):
    """There is no checkpoint where one is expected."""


class CostCountError(ValueError):
    """There are more or fewer cost limits than costs."""


class UnknownPolicyError(ValueError):
    """No algorithm has a name; the message names the nearest one and all others."""


class RunFolderError(ValueError):
    """A run folder is missing, is incomplete, is in use, or exists already."""


class RunStoppedError(RuntimeError):
    """A run cannot go on: a file cannot be written, or a process of the run has ended.

    What was saved before stays, and the run can be resumed.
    """


class ArgumentTypeError(ValueError, TypeError):
    """A setting or an argument is of a type that it cannot have.

    The error is a ``ValueError`` as that of a value out of range, and a ``TypeError`` as those of Python.
    """
