"""Errors that cross the rooms of the library."""

from __future__ import annotations


class NonFiniteError(FloatingPointError):
    """A NaN or infinity came from an environment, a network or a loss.

    Raised *before* anything is stored or any parameter is changed, so what was there stays usable.
    """


class CheckpointError(ValueError):
    """A checkpoint is damaged, foreign or does not fit what it is loaded into."""


class RunFolderError(ValueError):
    """A run folder is missing, incomplete or already taken."""
