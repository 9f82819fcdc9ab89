"""A user's own loggers and callbacks, beside what every run writes."""

import argparse
import json
import math
import sys
import types

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tianshou.utils import TensorboardLogger, WandbLogger
from torch.utils.tensorboard import SummaryWriter
from toys.recorder import Recorder
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext.experiment import RunCallback, resume, run
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report import read_progress


class Witness(RunCallback):
    """Notes when it is called, and what it sees."""

    def __init__(self):
        self.seen = []

    def on_collect_end(self, run):
        self.seen.append(("collect", run.env_step, run.trainer._gradient_step))

    def on_selection(self, run):
        assert run.folder.last.exists()
        self.seen.append(("selection", run.env_step, run.evaluation.env_step, run.evaluation.return_mean))

    def on_run_end(self, run):
        result = json.loads(run.folder.result.read_text())
        best = read_checkpoint(run.folder.best)["policy"]
        parameters = dict(run.policy.named_parameters())
        assert parameters
        assert all(torch.equal(x, best[name]) for name, x in parameters.items())
        self.seen.append(("end", run.env_step, result["status"]))


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def test_a_logger_is_given_what_ours_is_given(tmp_path):
    recorder = Recorder()
    done = run(small_config("ddpg_lag"), out=tmp_path, show_progress=False, logger=recorder)
    progress = read_progress(done.folder)
    for scope, column in (("train", "returns_stat/mean"), ("update", "loss/actor")):
        logged = ~np.isnan(progress[f"{scope}/{column}"])
        np.testing.assert_array_equal(recorder.steps(scope), progress["env_step"][logged])
    losses = [data["loss/actor"] for scope, _, data in recorder.rows if scope == "update"]
    np.testing.assert_array_equal(losses, progress["update/loss/actor"])
    assert recorder.steps("test") == [400, 800]
    assert recorder.steps("info") == [1, 2]
    assert [x[:2] for x in recorder.epochs] == [(1, 400), (2, 800)]
    assert recorder.ended == 1


def test_tianshou_tensorboard_logger_writes_beside_ours(tmp_path):
    plain = run(small_config("ddpg_lag"), out=tmp_path / "plain", show_progress=False)
    logger = TensorboardLogger(SummaryWriter(str(tmp_path / "mine")), update_interval=1, train_interval=1)
    done = run(small_config("ddpg_lag"), out=tmp_path, show_progress=False, logger=logger)
    assert_same_run(plain.folder, done.folder)
    mine, ours = events(tmp_path / "mine"), events(done.folder / "tensorboard")
    for name in ("update/loss/actor", "train/returns_stat/mean", "test/return"):
        points = [[(e.step, e.value) for e in x.Scalars(name)] for x in (mine, ours)]
        assert points[0] == points[1]
        assert points[0]


def test_a_logger_keeps_its_own_intervals(tmp_path):
    logger = TensorboardLogger(SummaryWriter(str(tmp_path / "mine")), update_interval=300)
    run(small_config("ddpg_lag"), out=tmp_path, show_progress=False, logger=logger)
    assert [e.step for e in events(tmp_path / "mine").Scalars("update/loss/actor")] == [320, 640]


def test_tianshou_wandb_logger_needs_no_writer_of_its_own(tmp_path, monkeypatch):
    """With a stand-in for the package wandb, of which Tianshou's logger calls these names."""
    sent = types.SimpleNamespace(finished=0, settings=None)

    def init(**settings):
        sent.settings = settings
        return types.SimpleNamespace(_label=lambda **_: None, finish=finish, id="1")

    def finish():
        sent.finished += 1

    stand_in = types.SimpleNamespace(run=None, init=init, Settings=argparse.Namespace)
    monkeypatch.setattr(sys.modules[WandbLogger.__module__], "wandb", stand_in, raising=False)
    logger = WandbLogger(project="safety", name="mine", update_interval=1)
    done = run(small_config("ddpg_lag"), out=tmp_path, show_progress=False, logger=logger)
    assert (sent.settings["project"], sent.settings["sync_tensorboard"]) == ("safety", True)
    assert sent.finished == 1
    # What Weights & Biases sends are the events of this writer.
    assert str(done.folder / "tensorboard") == logger.writer.log_dir
    logged = events(done.folder / "tensorboard").Scalars("update/gradient_step")
    assert len(logged) >= len(read_progress(done.folder)["env_step"])


@pytest.mark.parametrize("name", ["ddpg_lag", "cpo", "meta_cpo"])
def test_callbacks_are_called_in_order_and_change_nothing(name, tmp_path):
    plain = run(small_config(name), out=tmp_path / "plain", show_progress=False)
    witness, second = Witness(), Witness()
    done = run(small_config(name), out=tmp_path, show_progress=False, callbacks=[witness, second])
    assert_same_run(plain.folder, done.folder)
    assert witness.seen == second.seen
    steps = read_progress(done.folder)["env_step"].tolist()
    collects = [x for x in witness.seen if x[0] == "collect"]
    assert [x[1] for x in collects] == steps
    # The update of a collect comes after the callback.
    assert collects[0][2] == 0
    assert collects[-1][2] < done.result["gradient_step"]
    selections = [(x["env_step"], x["return_mean"]) for x in done.result["selections"]]
    verdicts = [x[1:] for x in witness.seen if x[0] == "selection"]
    assert [x[1:] for x in verdicts] == selections
    # The verdict on a selection comes at the next one, and that on the last one at once.
    assert [x[0] for x in verdicts] == [step for step, _ in [*selections[1:], selections[-1]]]
    assert witness.seen[-1] == ("end", done.result["env_step"], "finished")


def test_any_object_with_one_of_the_methods_will_do(tmp_path):
    ends = []
    callback = types.SimpleNamespace(on_run_end=lambda run: ends.append(run.config.policy))
    run(small_config("ddpg_lag"), out=tmp_path, show_progress=False, callbacks=(callback,))
    assert ends == ["ddpg_lag"]
    with pytest.raises(ValueError, match="callbacks must be objects, got the class RunCallback"):
        run(small_config("ddpg_lag"), out=tmp_path, show_progress=False, callbacks=[RunCallback])
    with pytest.raises(ValueError, match=r"callbacks must have one of on_collect_end, .*, got 3"):
        run(small_config("ddpg_lag"), out=tmp_path / "nothing", callbacks=[3])
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("hook", ["on_collect_end", "on_selection"])
def test_an_error_in_a_callback_ends_the_run_with_the_newest_policy_saved(hook, tmp_path):
    calls = []

    def fail(run):
        calls.append(run.env_step)
        if run.env_step >= 500:
            raise OSError("the disk is gone")

    recorder = Recorder()
    callback = types.SimpleNamespace(**{hook: fail})
    with pytest.raises(OSError, match="the disk is gone"):
        run(
            small_config("ddpg_lag"), out=tmp_path, run_name="mine", show_progress=False,
            callbacks=[callback], logger=recorder,
        )  # fmt: skip
    assert recorder.ended == 1
    last = read_checkpoint(tmp_path / "mine" / "checkpoints" / "last.pt")
    assert last["counters"]["env_step"] == calls[-1] >= 500
    assert not (tmp_path / "mine" / "result.json").exists()


def test_an_error_at_the_end_comes_after_everything_is_written(tmp_path):
    def fail(run):
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        run(
            small_config("ddpg_lag"), out=tmp_path, run_name="mine", show_progress=False,
            callbacks=[types.SimpleNamespace(on_run_end=fail)],
        )  # fmt: skip
    assert json.loads((tmp_path / "mine" / "result.json").read_text())["status"] == "finished"
    assert {x.name for x in (tmp_path / "mine" / "checkpoints").iterdir()} == {"best.pt", "last.pt"}


def test_a_resumed_run_has_loggers_and_callbacks_again(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", math.inf)
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    config = resumable_config("ddpg_lag")
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 800, tmp_path)
    witness, recorder = Witness(), Recorder()
    done = resume(folder, show_progress=False, logger=recorder, callbacks=[witness])
    assert_same_run(whole.folder, folder)
    resumed_at = done.result["resumed"][0]["env_step"]
    steps = [x[1] for x in witness.seen]
    assert min(steps) > resumed_at
    assert witness.seen[-1][0] == "end"
    assert min(recorder.steps("update")) > resumed_at
