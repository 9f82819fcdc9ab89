"""A run that is cut off and resumed ends as if nothing had happened."""

import json
import shutil

import numpy as np
import pytest
import torch

from fsrl_ext.cli import main
from fsrl_ext.errors import CheckpointError, RunFolderError
from fsrl_ext.experiment import make_config, resume, run
from fsrl_ext.experiment.registry import POLICIES
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report import read_progress
from fsrl_ext.trainer.cost_trainer import CostTrainer

# Epochs of 170 steps in four environments with episodes of 20: selections find all of them open.
SMALL = {
    "steps": 1030, "hidden_sizes": (16,), "num_envs": 4, "step_per_collect": 52, "batch_size": 32,
    "update_per_step": 0.1, "selections": 6, "selection_episodes": 2, "final_episodes": 4, "gamma": 0.9,
    "warmup_steps": 0,
}  # fmt: skip
META = {
    "num_tasks": 2, "inner_steps": 1, "step_per_collect": 40, "num_envs": 4, "steps": 1280, "gamma": 0.9,
    "hidden_sizes": (6,), "critic_hidden_sizes": (8,), "selections": 4, "selection_episodes": 4,
    "final_episodes": 4, "cg_iterations": 5, "max_backtracks": 4,
}  # fmt: skip


class Killed(BaseException):
    """What no code of the library expects."""


@pytest.fixture(autouse=True)
def _snapshots_always(monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", np.inf)
    monkeypatch.setattr(CostTrainer, "epochs_per_renewal", 2)


def small(name, task="ToyLine-v0", **settings):
    limit = {"cost_limit": 2.0} if POLICIES[name].constrained else {}
    shared = {k: v for k, v in SMALL.items() if k in list_settings(name)}
    return make_config(name, task, **(shared | limit | settings))


def run_killed(config, at, out):
    """Runs until a collect begins at step ``at`` or later, as far as a process gets that is killed there."""
    collect = CostTrainer._collect_training_data

    def until(self):
        if self.env_step >= at:
            raise Killed
        return collect(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CostTrainer, "_collect_training_data", until)
        with pytest.raises(Killed):
            run(config, out=out, run_name="run", show_progress=False)
    return out / "run"


def assert_same(one, other):
    """The runs' curves, policies and results are the same, bit for bit."""
    curves = [read_progress(x) for x in (one, other)]
    assert curves[0].keys() == curves[1].keys()
    for key, values in curves[0].items():
        if "time" not in key and "speed" not in key:
            np.testing.assert_array_equal(values, curves[1][key], err_msg=key)
    for name in ("best.pt", "last.pt"):
        first, second = (read_checkpoint(x / "checkpoints" / name) for x in (one, other))
        assert first["counters"] == second["counters"]
        for key, value in first["policy"].items():
            assert torch.equal(value, second["policy"][key]), key
    results = [json.loads((x / "result.json").read_text()) for x in (one, other)]
    for result in results:
        for key in ("seconds", "command", "resumed"):
            result.pop(key, None)
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "name", ["cvpo", "sac_lag", "ddpg_lag", "td3_lag", "cpo", "trpo_lag", "ppo_lag", "focops"]
)
def test_every_policy_goes_on_as_if_nothing_had_happened(name, tmp_path):
    config = small(name)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 800, tmp_path)
    assert not (folder / "result.json").exists()
    done = resume(folder, show_progress=False)
    (resumed,) = done.result["resumed"]
    assert resumed["exact"]
    assert 500 < resumed["env_step"] < 800
    assert not done.resumable
    assert_same(whole.folder, folder)


def test_random_steps_at_the_start_go_on(tmp_path):
    config = small("td3_lag", warmup_steps=600)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 400, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"][0]["env_step"] < 400
    assert_same(whole.folder, folder)


def test_a_collect_that_is_under_way_goes_on(tmp_path):
    config = small("ddpg_lag", task="SafetyBallCircle-v0", collect_ahead=True)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 800, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"][0]["exact"]
    assert_same(whole.folder, folder)


@pytest.mark.parametrize(
    ("task", "workers"), [("SafetyBallCircle-v0", 0), ("SafetyAntRun-v0", 2), ("SafetyPointGoal1-v0", 0)]
)
def test_simulators_go_on(task, workers, tmp_path):
    settings = {"workers": workers, "num_envs": workers} if workers else {}
    config = small("ddpg_lag", task=task, steps=5200, update_per_step=0.01, **settings)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 4000, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"][0]["exact"]
    assert_same(whole.folder, folder)


@pytest.mark.parametrize("name", ["meta_cpo", "maml_lag"])
def test_meta_learners_go_on(name, tmp_path):
    config = make_config(name, "MetaAim", cost_limit=5.0, **META)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 1000, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"] == [{"env_step": 960, "exact": True}]
    assert_same(whole.folder, folder)


def test_a_run_can_be_cut_off_twice_and_interrupted_from_the_keyboard(tmp_path, capsys, monkeypatch):
    config = small("ddpg_lag")
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 300, tmp_path)
    collect = CostTrainer._collect_training_data

    def until(self):
        if self.env_step >= 800:
            raise KeyboardInterrupt
        return collect(self)

    with monkeypatch.context() as patch:
        patch.setattr(CostTrainer, "_collect_training_data", until)
        assert main(["resume", str(folder), "--quiet"]) == 130
    assert f"to go on:   fsrl-ext resume {folder}" in capsys.readouterr().out
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    assert main(["resume", str(folder), "--quiet"]) == 0
    resumed = json.loads((folder / "result.json").read_text())["resumed"]
    assert [x["env_step"] for x in resumed] == sorted(x["env_step"] for x in resumed)
    assert len(resumed) == 2
    assert_same(whole.folder, folder)
    assert main(["resume", str(folder)]) == 2
    assert "has finished" in capsys.readouterr().err


def test_environments_that_do_not_repeat_themselves_begin_new_episodes(tmp_path):
    folder = run_killed(small("ddpg_lag", task="ToyForgetful-v0"), 800, tmp_path)
    with pytest.warns(UserWarning, match="did not repeat themselves"):
        done = resume(folder, show_progress=False)
    assert not done.result["resumed"][0]["exact"]
    assert done.status == "finished"
    assert done.result["env_step"] == 1032


def test_other_versions_are_told(tmp_path, monkeypatch):
    folder = run_killed(small("ddpg_lag"), 800, tmp_path)
    monkeypatch.setattr("fsrl_ext.__version__", "9.9")
    with pytest.warns(UserWarning, match=r"began with fsrl_ext .*, here it is 9\.9"):
        resume(folder, show_progress=False)


def test_what_cannot_be_resumed_says_why_and_stays(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        resume(tmp_path / "nothing")
    folder = run_killed(small("ddpg_lag"), 100, tmp_path)
    with pytest.raises(RunFolderError, match="no snapshot: it was cut off before its first selection"):
        resume(folder)
    folder = run_killed(small("ddpg_lag"), 800, tmp_path / "other")
    path = folder / "checkpoints" / "resume.pt"
    whole = path.read_bytes()
    before = (folder / "progress.csv").read_bytes()
    for damaged in (whole[:-300], whole[: len(whole) // 2] + b"\0" * 64 + whole[len(whole) // 2 + 64 :]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            resume(folder)
    assert (folder / "progress.csv").read_bytes() == before
    path.write_bytes(whole)
    shutil.copytree(folder, tmp_path / "copy")
    assert resume(tmp_path / "copy", show_progress=False).status == "finished"


def test_snapshots_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", 1e-9)
    folder = run_killed(small("ddpg_lag"), 800, tmp_path)
    done = resume(folder, show_progress=False)
    # Only the first selection took one.
    assert done.result["resumed"][0]["env_step"] == done.result["selections"][0]["env_step"]


def test_a_full_disk_costs_the_snapshot_alone(tmp_path, monkeypatch):
    save = torch.save

    def full(data, path):
        if path.name == "resume.tmp":
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(data, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match=r"no snapshot at .*resume\.pt .*No space left"):
        done = run(small("ddpg_lag"), out=tmp_path, show_progress=False)
    assert done.status == "finished"
    assert {x.name for x in (done.folder / "checkpoints").iterdir()} == {"best.pt", "last.pt"}


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None])])
def test_a_snapshot_refuses_what_it_could_not_give_back(value):
    with pytest.raises(TypeError):
        snapshot.plain({"x": [value]})


def test_a_snapshot_gives_back_what_it_was_given():
    value = {
        "a": np.arange(6, dtype=np.uint32).reshape(2, 3), "b": (np.float64(0.1), [True, None, b"x"]),
        3: {"c": np.zeros((0, 2), dtype=np.float32), "d": np.array(1.5)}, "e": 2**100,
    }  # fmt: skip
    again = snapshot.restored(snapshot.plain(value))
    np.testing.assert_array_equal(again["a"], value["a"])
    assert again["a"].dtype == np.uint32
    assert again["b"] == (0.1, [True, None, b"x"])
    assert again[3]["c"].shape == (0, 2)
    assert again[3]["d"].shape == ()
    assert again["e"] == 2**100
