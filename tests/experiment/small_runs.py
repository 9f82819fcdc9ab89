"""Runs that are small enough for tests: their settings, runs that are cut off, and comparisons of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys.policies import assert_same_state

from fsrl_ext.experiment import ExperimentConfig, make_config, run
from fsrl_ext.experiment.algorithms.meta import MetaTraining
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report import read_progress
from fsrl_ext.trainer.cost_trainer import CostTrainer

META = [name for name, row in algorithms().items() if issubclass(row.training, MetaTraining)]

SMALL = {
    "steps": 800, "cost_limit": 2.0, "hidden_sizes": (16,), "num_envs": 4, "step_per_collect": 80,
    "batch_size": 32, "update_per_step": 0.1, "selections": 2, "selection_episodes": 4, "final_episodes": 4,
    "gamma": 0.9, "warmup_steps": 0,
}  # fmt: skip
SMALL_META = {
    "num_tasks": 2, "inner_steps": 1, "step_per_collect": 40, "num_envs": 4, "steps": 640, "gamma": 0.9,
    "hidden_sizes": (6,), "critic_hidden_sizes": (8,), "selections": 2, "selection_episodes": 4,
    "final_episodes": 4, "cg_iterations": 5, "max_backtracks": 4, "cost_limit": 5.0,
}  # fmt: skip
# Epochs of 170 steps in four environments with episodes of 20: selections find all of them open.
OPEN_EPISODES = {"steps": 1030, "step_per_collect": 52, "selections": 6, "selection_episodes": 2}


def small(name: str, task: str | None = None, **settings: Any) -> ExperimentConfig:
    """A run of a second on a toy task; ``settings`` win."""
    is_meta, known = name in META, list_settings(name)
    shared = {k: v for k, v in (SMALL_META if is_meta else SMALL).items() if k in known}
    if not algorithm(name).constrained:
        del shared["cost_limit"]
    if name == "multitask_cpo":
        shared["inner_steps"] = 0
    return make_config(name, task or ("MetaAim" if is_meta else "ToyLine-v0"), **(shared | settings))


# Until fsrl_ext.policy has configs without multipliers (experiment/algorithms/awaited.py).


class Killed(BaseException):
    """What no code of the library expects."""


def run_killed(config: ExperimentConfig, at: int, out: Path) -> Path:
    """Runs until a collect begins at step ``at`` or later, as far as a process gets that is killed there."""
    collect = CostTrainer._collect_training_data

    def until(self: CostTrainer) -> Any:
        if self.env_step >= at:
            raise Killed
        return collect(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CostTrainer, "_collect_training_data", until)
        with pytest.raises(Killed):
            run(config, out=out, run_name="run", show_progress=False)
    return out / "run"


def assert_same(one: Path, other: Path) -> None:
    """The runs' curves, policies and results are the same, bit for bit."""
    curves = [read_progress(x) for x in (one, other)]
    assert curves[0].keys() == curves[1].keys()
    for key, values in curves[0].items():
        if "time" not in key and "speed" not in key:
            np.testing.assert_array_equal(values, curves[1][key], err_msg=key)
    for name in ("best.pt", "last.pt"):
        first, second = (read_checkpoint(x / "checkpoints" / name) for x in (one, other))
        assert first["counters"] == second["counters"]
        assert_same_state(first["policy"], second["policy"])
    results = [json.loads((x / "result.json").read_text()) for x in (one, other)]
    for result in results:
        for key in ("seconds", "command", "resumed"):
            result.pop(key, None)
    assert results[0] == results[1]
