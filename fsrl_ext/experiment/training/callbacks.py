"""What a user's own code may do while a run lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tianshou.policy import BasePolicy

from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.trainer import Evaluation
from fsrl_ext.trainer.cost_trainer import CostTrainer


class RunView(Protocol):
    """What a callback may read of a run."""

    config: ExperimentConfig
    """All settings."""
    policy: BasePolicy
    """The policy that is trained; at the end of a finished run it has the parameters of the best one."""
    trainer: CostTrainer
    """The trainer, with its counters, its collectors and the best evaluation so far."""
    folder: RunFolder
    """Where the run writes."""
    evaluation: Evaluation | None
    """The episodes of the newest selection; ``None`` before the first."""

    @property
    def env_step(self) -> int:
        """Environment steps so far."""


class RunCallback:
    """Base class of callbacks: every method does nothing, and a subclass overrides what it needs.

    Any other object will do that has at least one of the methods. An exception ends the run as an error after
    the newest policy was saved as ``last.pt``; the run can be resumed from its last snapshot. A callback that
    raises ``KeyboardInterrupt`` stops the run cleanly, as Ctrl-C does. A callback that draws from the global
    random numbers of Python, NumPy or torch changes the run.
    """

    def on_collect_end(self, run: RunView) -> None:
        """Called after each collect, before the policy learns from it."""

    def on_selection(self, run: RunView) -> None:
        """Called after each selection, when the best and the newest policy were saved.

        What a callback changes here is part of the next snapshot.
        """

    def on_run_end(self, run: RunView) -> None:
        """Called after a run has finished or was interrupted, when ``result.json`` was written."""


HOOKS = ("on_collect_end", "on_selection", "on_run_end")


def check_callbacks(callbacks: Sequence[Any]) -> tuple[Any, ...]:
    """The callbacks as a tuple.

    :raises ValueError: for an object without any of the methods, and for a class.
    """
    for callback in callbacks:
        if isinstance(callback, type):
            raise ValueError(f"callbacks must be objects, got the class {callback.__name__}")
        if not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
            raise ValueError(f"callbacks must have one of {', '.join(HOOKS)}, got {callback!r}")
    return tuple(callbacks)


def notify(callbacks: Sequence[Any], hook: str, run: RunView) -> None:
    """Calls one method of all callbacks that have it, in their order."""
    for callback in callbacks:
        method = getattr(callback, hook, None)
        if method is not None:
            method(run)
