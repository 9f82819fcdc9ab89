"""One training run, from a config to a run folder."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tianshou.policy import BasePolicy

from fsrl_ext.env import env_fn
from fsrl_ext.errors import NonFiniteError, RunFolderError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training import build
from fsrl_ext.experiment.training.checkpoint import (
    in_this_version,
    read_checkpoint,
    restore,
    save_checkpoint,
    versions,
)
from fsrl_ext.experiment.training.folder import new_run_folder, write_json
from fsrl_ext.experiment.training.logger import RunLogger
from fsrl_ext.experiment.training.snapshot import Snapshots, load_policy_state, load_run_state, read_snapshot
from fsrl_ext.experiment.training.warm_start import start_from
from fsrl_ext.report import plot_run, read_result
from fsrl_ext.trainer import Evaluation, evaluate_policy, seed_range
from fsrl_ext.trainer.cost_trainer import CostTrainer

SNAPSHOT = "resume.pt"


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    :param folder: the run folder.
    :param result: the content of its ``result.json``.
    """

    folder: Path
    result: dict[str, Any]

    @property
    def status(self) -> str:
        """``"finished"`` or ``"interrupted"``."""
        return self.result["status"]

    @property
    def resumable(self) -> bool:
        """Whether :func:`resume` can go on with it."""
        return (self.folder / "checkpoints" / SNAPSHOT).is_file()


def run(
    config: ExperimentConfig,
    *,
    out: str | os.PathLike[str] = "runs",
    run_name: str | None = None,
    show_progress: bool = True,
    command: str | None = None,
    init_from: str | os.PathLike[str] | None = None,
) -> RunResult:
    """Trains a policy and judges it.

    The run folder holds ``config.json``, ``progress.csv``, TensorBoard events, ``checkpoints/best.pt`` and
    ``last.pt``, ``result.json`` and ``curves.png``. A keyboard interrupt ends the run early and cleanly;
    :func:`resume` goes on with it.

    :param out: the run folder's parent.
    :param run_name: the run folder's name; a fresh one with a counter if not given.
    :param command: the command line to note in the result.
    :param init_from: a run folder (its best policy) or a checkpoint file whose networks, target networks,
        multipliers and optimiser moments the policy starts with. Settings are the config's, learning rates
        and cost limits too, and counters start from zero; there is no warm-up with random actions.
    :raises CheckpointError: if ``init_from`` is unusable or does not fit; nothing is written then.
    :raises ValueError: for a config that cannot run; nothing is written then.
    :raises NonFiniteError: if an environment or a loss gives NaN; the last good policy is saved before.
    """
    build.seed_everything(config)
    policy, spec = build.build_policy(config)
    origin: dict[str, Any] = {} if init_from is None else {"init_from": start_from(policy, config, init_from)}
    folder = new_run_folder(Path(out), config, run_name)
    start = "" if init_from is None else f", init_from={str(init_from)!r}"
    command = command or f"run(ExperimentConfig.from_dict({json.dumps(config.as_dict())}){start})"
    write_json(folder / "config.json", {"command": command, **origin, **config.as_dict()})
    return _Run(config, policy, spec, folder, command, show_progress, origin).execute()


def resume(folder: str | os.PathLike[str], *, show_progress: bool = True) -> RunResult:
    """Goes on with a run that was interrupted, killed or cut off, from its last snapshot.

    What was logged after the snapshot is logged again. In deterministic environments, with the same versions
    on the same machine, the run ends as if nothing had happened, bit for bit. Where the environments do not
    repeat themselves, a warning says so and new episodes begin. ``result.json`` notes each time under
    ``resumed``.

    :param folder: the run folder.
    :raises RunFolderError: if the run has finished, or the folder has no snapshot.
    :raises CheckpointError: if the snapshot is damaged, or from a version with other settings.
    """
    folder = Path(folder)
    path = folder / "checkpoints" / SNAPSHOT
    if not path.is_file():
        raise RunFolderError(_nothing_to_resume(folder))
    snapshot = read_snapshot(path)
    saved, past = versions(), snapshot["versions"]
    for name in (x for x in saved if saved[x] != past.get(x)):
        warnings.warn(f"the run began with {name} {past.get(name)}, here it is {saved[name]}", stacklevel=2)
    noted = snapshot["run"]
    config = in_this_version(ExperimentConfig.from_dict, noted["config"], snapshot, path)
    build.seed_everything(config)
    policy, spec = build.build_policy(config)
    load_policy_state(policy, snapshot)
    run = _Run(config, policy, spec, folder, noted["command"], show_progress, noted["origin"], snapshot)
    return run.execute()


def _nothing_to_resume(folder: Path) -> str:
    """Why a folder without a snapshot cannot be resumed."""
    if not (folder / "config.json").is_file():
        return f"{folder} is not a run folder"
    if (folder / "result.json").is_file() and read_result(folder)["status"] == "finished":
        return f"{folder} has finished; 'fsrl-ext train ... --init-from {folder}' trains its policy further"
    return f"{folder} has no snapshot: it was cut off before its first selection; start it anew"


class _Run:
    """The state that training, saving and reporting of one run share."""

    def __init__(
        self,
        config: ExperimentConfig,
        policy: BasePolicy,
        spec: TaskSpec,
        folder: Path,
        command: str,
        show_progress: bool,
        origin: dict[str, Any],
        snapshot: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.policy, self.spec = config, policy, spec
        self.folder, self.command, self.origin = folder, command, origin
        self.best_path = folder / "checkpoints" / "best.pt"
        self.last_path = folder / "checkpoints" / "last.pt"
        self.snapshots = Snapshots(folder / "checkpoints" / SNAPSHOT)
        self.curve: list[dict[str, Any]] = []
        self.resumed: list[dict[str, Any]] = []
        self.started = time.time()
        self.show_progress = show_progress
        logged = None if snapshot is None else snapshot["trainer"]["counters"]["env_step"]
        self.logger = RunLogger(folder, keep_until=logged)
        self.train_collector = build.train_collector(policy, config)
        episodes = math.gcd(config.selection_episodes, config.final_episodes)
        self.test_collector = build.test_collector(
            policy, config, spec, episodes=episodes, make_env=env_fn(config.env_id)
        )
        # Testing never takes more steps than training: short runs are tested less often.
        test_steps = config.selection_episodes * spec.max_episode_steps
        selections = min(config.selections, max(config.steps // test_steps, 1))
        self.trainer = self._trainer(selections)
        if snapshot is not None:
            self._take_up(snapshot)

    def _take_up(self, snapshot: dict[str, Any]) -> None:
        """Goes back to where a snapshot was taken."""
        noted = snapshot["run"]
        self.curve, self.resumed = noted["curve"], noted["resumed"]
        self.started = time.time() - noted["seconds"]
        if noted["best"] is not None:
            self.best_path.write_bytes(noted["best"])
        exact = load_run_state(self.trainer, snapshot)
        self.resumed.append({"env_step": self.trainer.env_step, "exact": exact})

    def _trainer(self, selections: int) -> CostTrainer:
        config = self.config
        return config.training.trainer(
            self.policy,
            self.train_collector,
            task=config.task,
            seed=config.seed,
            steps=config.steps,
            selections=selections,
            warm_start=bool(self.origin),
            test_collector=self.test_collector,
            cost_limit_schedule=None if config.cost_limit_start is None else config.scheduled_cost_limit,
            selection_seeds=seed_range("selection", config.selection_episodes),
            on_selection=self._after_selection,
            save_best_fn=lambda _: self._save(self.best_path),
            logger=self.logger,
            show_progress=self.show_progress,
        )

    def execute(self) -> RunResult:
        status = "finished"
        try:
            try:
                self.trainer.run()
            except KeyboardInterrupt:
                status = "interrupted"
            except NonFiniteError:
                # Losses are checked before a step is taken, so these are the last good parameters, unless a
                # finite loss had a gradient that was not: then last.pt stays that of the last selection.
                tensors = [x for x in self.policy.state_dict().values() if isinstance(x, torch.Tensor)]
                if all(bool(torch.isfinite(value).all()) for value in tensors):
                    self._save(self.last_path)
                raise
            self._save(self.last_path)
            if not self.best_path.exists():
                self._save(self.best_path)
            report = self._report(status)
            if status == "finished":
                self.snapshots.discard()
            return report
        finally:
            self.logger.finalize()
            self.train_collector.close()
            self.test_collector.close()

    def _save(self, path: Path) -> None:
        counters = {
            "env_step": self.trainer.env_step,
            "gradient_step": self.trainer._gradient_step,
            "episode": self.trainer.env_episode,
        }
        save_checkpoint(path, self.policy, config=self.config, spec=self.spec, counters=counters)

    def _after_selection(self, evaluation: Evaluation) -> None:
        self.curve.append(evaluation.summary())
        self._save(self.last_path)
        if self.trainer.env_step < self.trainer.step_budget:
            self.logger.flush()
            self.snapshots.take(self.policy, self.trainer, self._noted())

    def _noted(self) -> dict[str, Any]:
        """What a snapshot keeps of this object."""
        return {
            "config": self.config.as_dict(),
            "command": self.command,
            "origin": self.origin,
            "curve": self.curve,
            "resumed": self.resumed,
            "seconds": time.time() - self.started,
            "best": self.best_path.read_bytes() if self.best_path.exists() else None,
        }

    def _report(self, status: str) -> RunResult:
        self.logger.flush()
        trained = time.time() - self.started
        best_at, best_feasible = self.trainer.env_step, False
        if self.trainer.best is not None:
            best_at, best_feasible = self.trainer.best.env_step, self.trainer.best.feasible
        result: dict[str, Any] = {
            "status": status,
            "command": self.command,
            **self.origin,
            **({"resumed": self.resumed} if self.resumed else {}),
            "config": self.config.as_dict(),
            "config_digest": self.config.digest(),
            "versions": versions(),
            "env_step": self.trainer.env_step,
            "gradient_step": self.trainer._gradient_step,
            "train_episodes": self.trainer.env_episode,
            "share_above_limit": self.trainer.share_above_limit,
            "seconds": round(trained, 1),
            "cores": os.cpu_count(),
            "selections": self.curve,
        }
        if status == "finished":
            last = self._final_evaluation(self.trainer.env_step)
            if self.trainer.best is not None and best_at != self.trainer.env_step:
                restore(self.policy, read_checkpoint(self.best_path), optimisers=False)
                best = self._final_evaluation(best_at)
            else:
                best = last
            result["best"] = {**best.summary(), "selected_as_feasible": best_feasible}
            result["last"] = last.summary()
        write_json(self.folder / "result.json", result)
        plot_run(
            self.folder,
            title=f"{self.config.policy} on {self.config.task}, seed {self.config.seed}",
            cost_limit=self.config.cost_limit,
            path=self.folder / "curves.png",
        )
        return RunResult(self.folder, result)

    def _final_evaluation(self, env_step: int) -> Evaluation:
        return evaluate_policy(
            self.test_collector,
            seed_range("final", self.config.final_episodes),
            cost_limit=self.config.cost_limit,
            env_step=env_step,
        )
