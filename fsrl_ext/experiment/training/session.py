"""One run while it lasts: it is built, it trains, and it reports."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from tianshou.policy import BasePolicy
from tianshou.utils import BaseLogger

from fsrl_ext.data import ProcessEndedError
from fsrl_ext.data.interrupts import uninterrupted
from fsrl_ext.env import env_fn
from fsrl_ext.errors import RunStoppedError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training import build
from fsrl_ext.experiment.training.callbacks import notify
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, restore, save_checkpoint, versions
from fsrl_ext.experiment.training.folder import write_failure, writing
from fsrl_ext.experiment.training.logger import RunLogger
from fsrl_ext.experiment.training.permission import resume_command
from fsrl_ext.experiment.training.snapshot import Snapshots, load_run_state
from fsrl_ext.report import plot_run
from fsrl_ext.report.files import replacing, write_json
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.trainer import Evaluation, seed_range
from fsrl_ext.trainer.cost_trainer import CostTrainer
from fsrl_ext.trainer.player import EpisodePlayer, parameters_of


class Session:
    """A run; callbacks are given this object (:class:`~fsrl_ext.experiment.training.callbacks.RunView`).

    :param policy: fresh, started from a saved one, or as a snapshot has it.
    :param folder: made for this run.
    :param command: the command line to note in the result.
    :param init_from: where a policy that was trained before came from; ``None`` for a fresh one.
    :param logger: a user's own.
    :param cores: processor cores that the run uses.
    :param snapshot: what to go on from; ``None`` for a run that begins.
    :param again: whether a run begins that was cut off before its first snapshot.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        policy: BasePolicy,
        spec: TaskSpec,
        folder: RunFolder,
        *,
        command: str,
        init_from: dict[str, Any] | None,
        logger: BaseLogger | None,
        callbacks: Sequence[Any],
        show_progress: bool,
        cores: int,
        snapshot: dict[str, Any] | None = None,
        again: bool = False,
    ) -> None:
        self.config = config
        self.policy = policy
        self.folder = folder
        self.evaluation: Evaluation | None = None
        self._spec, self._command, self._init_from = spec, command, init_from
        self._callbacks = tuple(callbacks)
        self._selections: list[dict[str, Any]] = []
        self._resumed: list[dict[str, Any]] = [{"env_step": 0, "exact": True}] if again else []
        self._judging = self._finished = False
        self._started = time.time()
        self._snapshots = Snapshots(folder.snapshot, first_at_once=snapshot is None)
        self._show_progress = show_progress
        self._cores = cores
        self._candidate: bytes | None = None
        with contextlib.ExitStack() as opened:
            self._logger = RunLogger(
                folder, state=None if snapshot is None else snapshot["run"]["logger"], beside=logger
            )
            opened.callback(self._logger.finalize)
            self._train_collector = build.train_collector(policy, config, cores=cores)
            opened.callback(self._train_collector.close)
            self._player = self._build_player(cores)
            opened.callback(self._player.close)
            self.trainer = self._build_trainer(show_progress)
            if snapshot is not None:
                self._go_on_from(snapshot)
            self._opened = opened.pop_all()

    @property
    def env_step(self) -> int:
        """Environment steps so far."""
        return self.trainer.env_step

    def _build_player(self, cores: int) -> EpisodePlayer:
        """What plays test episodes: on two cores or more, a process of its own."""
        config = self.config
        make_collector = functools.partial(
            build.test_collector,
            config=config,
            spec=self._spec,
            episodes=build.test_envs(config, config.final_episodes),
            make_env=env_fn(config.env_id, **config.env_arguments),
        )
        return EpisodePlayer(self.policy, make_collector, cores=cores)

    def _build_trainer(self, show_progress: bool) -> CostTrainer:
        config = self.config
        # Testing never takes more steps than training: short runs are tested less often.
        decisions = config.selection_episodes * self._spec.max_episode_steps
        test_steps = decisions * config.training.action_repeat
        return config.training.trainer(
            self.policy,
            self._train_collector,
            task=config.task,
            seed=config.seed,
            steps=config.steps,
            selections=min(config.selections, max(config.steps // test_steps, 1)),
            warm_start=self._init_from is not None,
            test_collector=self._player,
            cost_limit_schedule=None if config.cost_limit_start is None else config.scheduled_cost_limit,
            selection_seeds=seed_range("selection", config.selection_episodes),
            selection_min_episodes=config.selection_min_episodes,
            on_collect_end=lambda: notify(self._callbacks, "on_collect_end", self),
            on_cycle_end=self._take_snapshot_if_due,
            on_candidate=self._keep_candidate,
            on_selection=self._after_selection,
            save_best_fn=lambda _: self._save_candidate_as_best(),
            logger=self._logger,
            show_progress=show_progress,
            **({} if config.costs is None else {"cost_names": config.costs}),
        )

    def _go_on_from(self, snapshot: dict[str, Any]) -> None:
        """Returns to where a snapshot was taken."""
        run = snapshot["run"]
        self._selections, self._resumed = run["selections"], run["resumed"]
        self._candidate = run.get("candidate")  # snapshots of earlier versions have none
        self._started = time.time() - run["seconds"]
        if run["best"] is None:
            self.folder.best.unlink(missing_ok=True)
        else:
            with writing(self.folder.best), replacing(self.folder.best) as file:
                file.write(run["best"])
        exact = load_run_state(self.trainer, snapshot)
        self._resumed.append({"env_step": self.env_step, "exact": exact})

    def execute(self) -> dict[str, Any]:
        """Trains, judges and reports; returns the content of ``result.json``.

        A keyboard interrupt ends training or the final evaluation, and the result says so.

        :raises RunStoppedError: if a file cannot be written, or a process of the run has ended.
        """
        try:
            try:
                self.trainer.run()
                self._save_policies()
                self._judging = True
                result = self._write_result("finished", self._final_evaluations())
            except KeyboardInterrupt:
                with uninterrupted():
                    if not self._judging:
                        self._save_policies()
                    result = self._write_result("interrupted", {})
                    self._draw()
            else:
                self._finished = True
                self._draw()
                self._snapshots.discard()
            notify(self._callbacks, "on_run_end", self)
            return result
        except Exception as error:
            with uninterrupted():
                error.add_note(self._what_is_left())
            if isinstance(error, ProcessEndedError):
                stopped = RunStoppedError(str(error))
                stopped.add_note(error.__notes__[-1])
                raise stopped from error
            raise
        finally:
            with uninterrupted():
                self._opened.close()

    def _save_policies(self) -> None:
        """Saves the newest policy, which is also the best one if there was no selection."""
        # Losses are checked before a step is taken, so the parameters are the last good ones, unless a
        # finite loss had a gradient that was not finite: last.pt then stays that of the last selection.
        if self._is_finite():
            self._save("last")
            if not self.folder.best.exists():
                self._save("best")

    def _what_is_left(self) -> str:
        """One line on where an error stopped the run, on the saved policy, and on the way to go on."""
        where = f"{self.config.task} at environment step {self.env_step:,}"
        if self._finished:
            return f"{where}; the run has finished, and its files are in {self.folder.path}"
        if not self.folder.path.is_dir():
            return f"{where}; the run folder {self.folder.path} is gone, and nothing was saved"
        try:
            if not self._judging:
                self._save_policies()
            self._logger.flush()
        except RunStoppedError:
            saved = "the newest policy could not be saved"
        else:
            saved = f"the last good policy is {self.folder.last}"
        command = resume_command(self.folder.path, allow_import=self.config.imports_modules)
        return f"{where}; {saved}; to go on: {command}"

    def _is_finite(self) -> bool:
        tensors = [x for x in self.policy.state_dict().values() if isinstance(x, torch.Tensor)]
        return all(bool(torch.isfinite(value).all()) for value in tensors)

    def _save(self, which: str) -> None:
        counters = {
            "env_step": self.trainer.env_step,
            "gradient_step": self.trainer._gradient_step,
            "episode": self.trainer.env_episode,
        }
        path = self.folder.best if which == "best" else self.folder.last
        with writing(path):
            save_checkpoint(path, self.policy, config=self.config, spec=self._spec, counters=counters)

    def _keep_candidate(self) -> None:
        """Saves the newest policy, and keeps what becomes ``best.pt`` if the verdict on it is good."""
        self._save("last")
        with writing(self.folder.last):
            self._candidate = self.folder.last.read_bytes()
        self._logger.begin_row(self.env_step)
        if self.env_step < self.trainer.step_budget:
            self._take_snapshot_if_due()  # the last verdict comes at once, and a snapshot with it

    def _save_candidate_as_best(self) -> None:
        assert self._candidate is not None
        with writing(self.folder.best), replacing(self.folder.best) as file:
            file.write(self._candidate)

    def _after_selection(self, evaluation: Evaluation) -> None:
        """Notes a verdict. The next snapshot comes with the next candidate, or here after the last one."""
        self.evaluation = evaluation
        self._candidate = None
        self._selections.append(evaluation.summary())
        notify(self._callbacks, "on_selection", self)
        if evaluation.env_step >= self.trainer.step_budget:  # the final evaluation may be cut off, too
            self._snapshots.take(self.policy, self.trainer, self._state)

    def _take_snapshot_if_due(self) -> None:
        if self._snapshots.due:
            self._snapshots.take(self.policy, self.trainer, self._state)

    def _state(self) -> dict[str, Any]:
        """What a snapshot keeps of this object."""
        return {
            "config": self.config.as_dict(),
            "command": self._command,
            "init_from": self._init_from,
            "selections": self._selections,
            "resumed": self._resumed,
            "seconds": time.time() - self._started,
            "best": self.folder.best.read_bytes() if self.folder.best.exists() else None,
            "candidate": self._candidate,
            "logger": self._logger.state_dict(),
        }

    def _write_result(self, status: str, judged: dict[str, Any]) -> dict[str, Any]:
        """Writes ``result.json``, and returns its content.

        :param judged: the final evaluations of a finished run.
        """
        config, trainer = self.config, self.trainer
        result: dict[str, Any] = {
            "status": status,
            "command": self._command,
            **({} if self._init_from is None else {"init_from": self._init_from}),
            **({"resumed": self._resumed} if self._resumed else {}),
            "config": config.as_dict(),
            "config_digest": config.digest(),
            "versions": versions(),
            "env_step": trainer.env_step,
            "gradient_step": trainer._gradient_step,
            "train_episodes": trainer.env_episode,
            "share_above_limit": trainer.share_above_limit,
            "seconds": round(time.time() - self._started, 1),
            "cores": self._cores,
            "selections": self._selections,
            **judged,
        }
        with writing(self.folder.result):
            write_json(self.folder.result, result)
        try:
            self._logger.flush()
        except RunStoppedError as error:  # a row of the curves never costs the result
            warnings.warn(f"the last row of the curves is missing: {error}", stacklevel=2)
        return result

    def _draw(self) -> None:
        """Draws the curves; without the picture the run is complete all the same."""
        config, path = self.config, self.folder.curves
        if not self.folder.progress.exists():  # the run ended before its first row
            return
        try:
            plot_run(
                self.folder.path,
                title=f"{config.policy} on {config.task}, seed {config.seed}",
                cost_limit=config.cost_limit,
                limit_unit=config.policy_config.limit_unit,
                costs=config.costs,
                path=path,
            )
        except Exception as error:  # of any kind: the picture never costs the result
            reason = f"{type(error).__name__}: {write_failure(error)}"
            warnings.warn(f"{path} was not drawn ({reason}); everything else is saved", stacklevel=2)

    def _final_evaluations(self) -> dict[str, Any]:
        """Judges the last and the best policy, side by side on two cores or more.

        The policy is the best one afterwards.
        """
        selected = self.trainer.best
        self._start_final(self._player, self.env_step)
        if selected is None or selected.env_step == self.env_step:
            best = last = self._player.finish()
        else:
            restore(self.policy, read_checkpoint(self.folder.best), optimisers=False)
            with contextlib.ExitStack() as opened:
                second = self._player
                if self._cores == 1:
                    last = self._player.finish()
                else:
                    second = self._build_player(cores=1)
                    opened.callback(second.close)
                self._start_final(second, selected.env_step)
                best = second.finish()
                if self._cores > 1:
                    last = self._player.finish()
        feasible = selected is not None and selected.feasible
        return {
            "best": {**best.summary(), **_episodes(best), "selected_as_feasible": feasible},
            "last": {**last.summary(), **_episodes(last)},
        }

    def _start_final(self, player: EpisodePlayer, env_step: int) -> None:
        player.start(
            parameters_of(self.policy),
            seed_range("final", self.config.final_episodes),
            cost_limit=self.config.cost_limit,
            limit_unit=self.config.policy_config.limit_unit,
            env_step=env_step,
            show_progress=self._show_progress,
            what="final evaluation",
        )


def _episodes(evaluation: Evaluation) -> dict[str, Any]:
    """The episodes of an evaluation in the order of their seeds, for statistics of their distribution."""
    others = evaluation.other_costs
    return {
        "returns": evaluation.returns.tolist(),
        "costs": evaluation.costs.tolist(),
        **({} if others is None else {"other_costs": others.tolist()}),
    }
