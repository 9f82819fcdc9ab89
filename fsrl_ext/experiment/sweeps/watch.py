"""Follows the trials of a sweep for its overview and its outcome, and stops them after a signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsrl_ext.data.interrupts import InterruptGuard
from fsrl_ext.experiment.sweeps.folder import StudyFolder

if TYPE_CHECKING:
    from fsrl_ext.experiment.sweeps.overview import Overview


class TrialWatch:
    """Notes how trials begin and end.

    :param overview: shows it.
    :param name_of: from the settings of a trial, the name of its run.
    :param guard: holds signals back while Ray Tune runs.
    :param stop_file: is made after a signal; trials see it and end their runs.
    """

    def __init__(
        self,
        overview: Overview,
        name_of: Callable[[Mapping[str, Any]], str],
        guard: InterruptGuard,
        stop_file: Path,
        study: StudyFolder,
    ) -> None:
        self._overview, self._name_of, self._guard = overview, name_of, guard
        self._stop_file, self._study = stop_file, study
        self.ends: dict[str, str] = {}
        """How the trials ended, by the names of their runs: ``"finished"``, ``"failed"``, ``"stopped"`` by a
        scheduler, or ``"unfinished"``."""
        self.objectives: dict[str, float] = {}
        """The newest objective of each run."""

    def is_stopping(self) -> bool:
        """Whether a signal came; the trials then end their runs."""
        if self._guard.waiting and not self._stop_file.exists():
            self._stop_file.touch()
            self._overview.say("the runs are being interrupted")
        return self._guard.waiting

    def began(self, settings: Mapping[str, Any]) -> None:
        """A trial has begun."""
        name = self._name_of(settings)
        self.ends[name] = "unfinished"
        self._overview.began(name)

    def reported(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """A trial has reported."""
        if "objective" in result:
            self.objectives[self._name_of(settings)] = result["objective"]

    def ended(self, settings: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """A trial has ended: its run has ended, a scheduler stopped it, or a signal."""
        name = self._name_of(settings)
        if "end" in result:
            end = result["end"]
        elif self.is_stopping():
            end = "unfinished"
        else:
            end = "stopped"
        self.ends[name] = end
        self._overview.ended(name, {"stopped": "stopped early", "unfinished": "interrupted"}.get(end, end))

    def lost(self, settings: Mapping[str, Any], error: str) -> None:
        """Ray could not run a trial."""
        name = self._name_of(settings)
        with self._study.log(name).open("a") as log:
            print(error.strip(), file=log)
        self.ends[name] = "failed"
        self._overview.ended(name, "failed")

    def step(self) -> None:
        """Called about ten times per second."""
        self.is_stopping()
        self._overview.refresh()

    def callback(self) -> Any:
        """The callback of Ray Tune that calls these methods."""
        from ray import tune

        watch = self

        class Callback(tune.Callback):
            def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
                watch.began(trial.config)

            def on_trial_result(
                self, iteration: int, trials: Any, trial: Any, result: dict, **_: Any
            ) -> None:
                watch.reported(trial.config, result)

            def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
                watch.ended(trial.config, trial.last_result or {})

            def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
                watch.lost(trial.config, str(trial.get_error()))

            def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
                watch.step()

            def __reduce__(self) -> Any:  # Ray Tune saves its callbacks; this one is for this process alone
                return tune.Callback, ()

        return Callback()

    def stopper(self) -> Any:
        """The stopper of Ray Tune, which ends the sweep after a signal."""
        from ray import tune
        from ray.tune.stopper import NoopStopper

        watch = self

        class Stopper(tune.Stopper):
            def __call__(self, trial_id: str, result: dict) -> bool:
                return False

            def stop_all(self) -> bool:
                return watch.is_stopping()

            def __reduce__(self) -> Any:
                return NoopStopper, ()

        return Stopper()
