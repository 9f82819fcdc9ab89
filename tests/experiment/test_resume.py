"""A run that is cut off and resumed ends as if nothing had happened."""

import itertools
import json
import shutil

import numpy as np
import pytest
from toys.runs import assert_same_run, resumable_config, run_killed

from fsrl_ext.cli import main
from fsrl_ext.errors import CheckpointError, RunFolderError
from fsrl_ext.experiment import resume, run
from fsrl_ext.experiment.training import checkpoint, snapshot
from fsrl_ext.trainer.cost_trainer import CostTrainer


@pytest.fixture(autouse=True)
def _snapshots_always(monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", np.inf)
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    monkeypatch.setattr(CostTrainer, "epochs_per_renewal", 2)


@pytest.fixture
def _some_snapshots(monkeypatch):
    """Take every third snapshot, which leaves steps to repeat, mostly in the middle of an epoch."""
    calls = itertools.count()
    monkeypatch.setattr(snapshot.Snapshots, "due", property(lambda self: next(calls) % 3 == 0))


@pytest.mark.usefixtures("_some_snapshots")
@pytest.mark.parametrize(
    "name", ["cvpo", "sac_lag", "ddpg_lag", "td3_lag", "cpo", "trpo_lag", "ppo_lag", "focops"]
)
def test_every_policy_goes_on_as_if_nothing_had_happened(name, tmp_path):
    config = resumable_config(name)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 800, tmp_path)
    assert not (folder / "result.json").exists()
    done = resume(folder, show_progress=False)
    (resumed,) = done.result["resumed"]
    assert resumed["exact"]
    # In the middle of an epoch, which has 172 steps, or 208 on-policy.
    assert resumed["env_step"] in (740, 780)
    assert not done.resumable
    assert_same_run(whole.folder, folder)


@pytest.mark.usefixtures("_some_snapshots")
def test_random_steps_at_the_start_go_on(tmp_path):
    config = resumable_config("td3_lag", warmup_steps=600)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 400, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"][0]["env_step"] == 448
    assert_same_run(whole.folder, folder)


@pytest.mark.usefixtures("_some_snapshots")
def test_a_collect_that_is_under_way_goes_on(tmp_path):
    config = resumable_config("ddpg_lag", "SafetyBallCircle-v0", collect_ahead=True)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 800, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"][0]["exact"]
    assert_same_run(whole.folder, folder)


@pytest.mark.parametrize(
    ("task", "workers"), [("SafetyBallCircle-v0", 0), ("SafetyAntRun-v0", 2), ("SafetyPointGoal1-v0", 0)]
)
def test_simulators_go_on(task, workers, tmp_path):
    settings = {"steps": 5200, "update_per_step": 0.01}
    settings |= {"workers": workers, "num_envs": workers} if workers else {}
    config = resumable_config("ddpg_lag", task, **settings)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False, cores=1)
    folder = run_killed(config, 4000, tmp_path, cores=1)
    assert resume(folder, show_progress=False, cores=1).result["resumed"][0]["exact"]
    assert_same_run(whole.folder, folder)


@pytest.mark.parametrize("name", ["meta_cpo", "maml_lag"])
def test_meta_learners_go_on(name, tmp_path):
    config = resumable_config(name)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    # An iteration has 160 steps, and every second one is followed by a selection.
    folder = run_killed(config, 1000, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"] == [{"env_step": 1120, "exact": True}]
    assert_same_run(whole.folder, folder)


def test_a_run_can_be_cut_off_twice_and_interrupted_from_the_keyboard(tmp_path, capsys, monkeypatch):
    config = resumable_config("ddpg_lag")
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
    line = f"interrupted after 844 steps; to go on: fsrl-ext resume {folder}"
    assert capsys.readouterr().out.splitlines() == [line]
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    assert main(["resume", str(folder), "--quiet"]) == 0
    resumed = json.loads((folder / "result.json").read_text())["resumed"]
    assert [x["env_step"] for x in resumed] == sorted(x["env_step"] for x in resumed)
    assert len(resumed) == 2
    assert_same_run(whole.folder, folder)
    assert main(["resume", str(folder)]) == 2
    assert "has finished" in capsys.readouterr().err


def test_environments_that_do_not_repeat_themselves_begin_new_episodes(tmp_path):
    folder = run_killed(resumable_config("ddpg_lag", "ToyForgetful-v0"), 800, tmp_path)
    with pytest.warns(UserWarning, match="did not repeat themselves"):
        done = resume(folder, show_progress=False)
    assert not done.result["resumed"][0]["exact"]
    assert done.status == "finished"
    assert done.result["env_step"] == 1032


def test_other_versions_are_told(tmp_path, monkeypatch):
    folder = run_killed(resumable_config("ddpg_lag"), 800, tmp_path)
    monkeypatch.setattr("fsrl_ext.__version__", "9.9")
    with pytest.warns(UserWarning, match=r"began with fsrl_ext .*, here it is 9\.9"):
        resume(folder, show_progress=False)


def test_what_cannot_be_resumed_says_why_and_stays(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        resume(tmp_path / "nothing")
    folder = run_killed(resumable_config("ddpg_lag"), 800, tmp_path / "other")
    path = folder / "checkpoints" / "resume.pt"
    whole = path.read_bytes()
    before = (folder / "progress.csv").read_bytes()
    middle = len(whole) // 2
    inverted = bytes(255 - x for x in whole[middle : middle + 256])
    for damaged in (whole[:-300], whole[:middle] + inverted + whole[middle + 256 :]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            resume(folder)
    assert (folder / "progress.csv").read_bytes() == before
    path.write_bytes(whole)
    shutil.copytree(folder, tmp_path / "copy")
    assert resume(tmp_path / "copy", show_progress=False).status == "finished"


def test_snapshots_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", 1e-9)
    folder = run_killed(resumable_config("ddpg_lag"), 800, tmp_path)
    # There was only the one before the first collect.
    assert resume(folder, show_progress=False).result["resumed"] == [{"env_step": 0, "exact": True}]


def test_a_full_disk_costs_the_snapshot_alone(tmp_path, monkeypatch):
    write = checkpoint.write_archive

    def full(file, data):
        if "fsrl_ext_snapshot" in data:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        write(file, data)

    monkeypatch.setattr(checkpoint, "write_archive", full)
    with pytest.warns(UserWarning, match=r"no snapshot at .*resume\.pt .*No space left.*make room"):
        done = run(resumable_config("ddpg_lag"), out=tmp_path, show_progress=False)
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
