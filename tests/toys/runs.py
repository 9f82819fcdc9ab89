"""Runs that are killed, and whether two run folders hold the same run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fsrl_ext.experiment import run
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report import read_progress
from fsrl_ext.trainer.cost_trainer import CostTrainer
from toys.policies import assert_same_state
from toys.settings import META_NAMES, small_config

# Epochs of 170 steps in four environments with episodes of 20: every selection finds all episodes open.
OPEN_EPISODES = {"steps": 1030, "step_per_collect": 52, "selections": 6, "selection_episodes": 2}
# Twice as many meta-iterations as in a small run.
LONGER_META = {"steps": 1280, "selections": 4}


class Killed(BaseException):
    """Stands for a signal: no code of the library expects it."""


def resumable_config(name, task=None, **settings):
    """Return the config of a small run that is long enough to be killed and resumed."""
    longer = LONGER_META if name in META_NAMES else OPEN_EPISODES
    return small_config(name, task, **{**longer, **settings})


def run_killed(config, at, out, **arguments):
    """Run until a collect begins at step ``at`` or later, and leave what a killed process would leave.

    :param arguments: further ones of ``run``.
    :return: the run's folder.
    """
    collect = CostTrainer._collect_training_data

    def until(self):
        if self.env_step >= at:
            raise Killed
        return collect(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CostTrainer, "_collect_training_data", until)
        with pytest.raises(Killed):
            run(config, out=out, run_name="run", show_progress=False, **arguments)
    return out / "run"


def assert_same_run(one, other):
    """Assert that curves, policies and results of two run folders are the same, bit for bit."""
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
        for key in ("seconds", "cores", "command", "resumed"):
            result.pop(key, None)
    assert results[0] == results[1]
