"""How far a run of a sweep is, as its folder says."""

import dataclasses
import shutil

import pytest
from toys.runs import resumable_config, run_killed

from fsrl_ext.experiment import resume, run
from fsrl_ext.experiment.sweeps.plan import PlannedRun
from fsrl_ext.experiment.sweeps.status import RunState, run_state
from fsrl_ext.experiment.training.lock import locked, trained_by
from fsrl_ext.report.folder import RunFolder

CONFIG = resumable_config("td3_lag", steps=400)
PLANNED = PlannedRun(name="run", config=CONFIG)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The parent of a run that has finished."""
    out = tmp_path_factory.mktemp("finished")
    run(CONFIG, out=out, run_name="run", show_progress=False)
    return out


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The parent of a run that was killed after its first snapshot."""
    out = tmp_path_factory.mktemp("started")
    run_killed(CONFIG, 100, out)
    return out


def copied(out, tmp_path):
    shutil.copytree(out / "run", tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_run_that_is_not_there_has_not_begun(tmp_path):
    assert run_state(tmp_path, PLANNED).state is RunState.NEW
    assert list(tmp_path.iterdir()) == []


def test_finished_and_started(finished, started, tmp_path):
    assert run_state(finished, PLANNED).state is RunState.FINISHED
    assert run_state(started, PLANNED).state is RunState.STARTED
    folder = copied(started, tmp_path)
    for path in (folder.snapshot, folder.best, folder.last):
        path.unlink(missing_ok=True)
    assert run_state(tmp_path, PLANNED).state is RunState.STARTED  # it begins again from its config
    assert resume(folder.path, show_progress=False).status == "finished"
    assert run_state(tmp_path, PLANNED).state is RunState.FINISHED


def test_what_cannot_be_continued_is_broken(finished, started, tmp_path):
    folder = copied(started, tmp_path)
    kept = folder.snapshot.read_bytes()
    folder.snapshot.write_bytes(kept[:-200])
    status = run_state(tmp_path, PLANNED)
    assert status.state is RunState.BROKEN
    assert "resume.pt is damaged" in status.reason
    for path in (folder.snapshot, folder.best, folder.last):
        path.unlink(missing_ok=True)
    folder.config.write_text("{")
    assert "config.json is damaged" in run_state(tmp_path, PLANNED).reason
    folder.config.unlink()
    assert "has no config.json" in run_state(tmp_path, PLANNED).reason
    folder.last.write_bytes(b"")
    assert "policies but no snapshot" in run_state(tmp_path, PLANNED).reason
    shutil.rmtree(folder.path)
    copied(finished, tmp_path).result.write_text("[]")
    status = run_state(tmp_path, PLANNED)
    assert (status.state, "result.json is damaged" in status.reason) == (RunState.BROKEN, True)


@pytest.mark.parametrize("kind", ["finished", "started", "begun"])
def test_other_settings_are_named(kind, finished, started, tmp_path):
    folder = copied(finished if kind == "finished" else started, tmp_path)
    if kind == "begun":
        for path in (folder.snapshot, folder.best, folder.last):
            path.unlink(missing_ok=True)
    training = dataclasses.replace(CONFIG.training, critic_lr=0.5)
    planned = PlannedRun(name="run", config=dataclasses.replace(CONFIG, steps=500, training=training))
    assert run_state(tmp_path, planned).state is RunState.OTHER
    assert run_state(tmp_path, planned).reason == (
        f"critic_lr is {CONFIG.training.critic_lr} there and 0.5 in the plan; "
        "steps is 400 there and 500 in the plan"
    )


def test_a_run_that_began_from_a_saved_policy_is_another(finished, tmp_path):
    run(CONFIG, out=tmp_path, run_name="run", show_progress=False, init_from=finished / "run")
    status = run_state(tmp_path, PLANNED)
    assert status.reason == "init_from is a saved policy there and fresh networks in the plan"


def test_a_locked_run_is_being_trained(started, tmp_path):
    folder = copied(started, tmp_path)
    assert trained_by(folder) is None
    with locked(folder):
        status = run_state(tmp_path, PLANNED)
        assert status.state is RunState.LOCKED
        assert f"process {trained_by(folder)} trains it" == status.reason
    assert run_state(tmp_path, PLANNED).state is RunState.STARTED
