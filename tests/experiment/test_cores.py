"""The number of cores decides where a run is computed, and nothing that it computes."""

import itertools
import os
import signal
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
from toys.resources import held
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.errors import RunStoppedError
from fsrl_ext.experiment import resume, run
from fsrl_ext.experiment.training import cores as cores_module
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.cores import (
    available_cores,
    resolve_cores,
    warn_of_more_processes_than_cores,
)
from fsrl_ext.report.folder import RunFolder


def test_a_run_uses_the_cores_it_may_use_as_far_as_it_has_work(monkeypatch):
    config = small_config("sac_lag", num_envs=4, steps=5_000)
    assert available_cores() == len(os.sched_getaffinity(0))
    for available, expected in ((1, 1), (2, 2), (64, 6)):
        monkeypatch.setattr(cores_module, "available_cores", lambda: available)  # noqa: B023 - called at once
        assert resolve_cores(None, config) == expected
    assert resolve_cores(3, config) == 3
    assert resolve_cores(None, small_config("sac_lag", steps=4_999)) == 1


def test_numbers_of_cores_that_cannot_be_used_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"cores must be a whole number >= 1, got 0"):
        run(small_config("sac_lag"), out=tmp_path, cores=0)
    with pytest.raises(ValueError, match=r"cores must be .*, got 'two'"):
        resume(tmp_path, cores="two")
    command = ["train", "sac_lag", "ToyLine-v0", "--cost-limit", "2", "--out", str(tmp_path), "--cores", "0"]
    assert main(command) == 2
    assert "fsrl-ext: cores must be a whole number >= 1, got 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cores", "settings", "processes"),
    [
        (1, {}, None),
        (2, {}, None),
        (2, {"collect_ahead": True}, None),
        (2, {"workers": 2, "collect_ahead": False}, None),
        (3, {}, 3),
        (1, {"workers": 3}, 3),
        (2, {"workers": 2, "collect_ahead": True}, 3),
        (1, {"workers": 2, "collect_ahead": True}, None),
    ],
)
def test_more_processes_than_cores_are_one_line_of_warning(cores, settings, processes, monkeypatch):
    monkeypatch.setattr(cores_module, "available_cores", lambda: 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_more_processes_than_cores(cores, small_config("sac_lag", **settings))
    messages = [str(w.message) for w in caught]
    if processes is None:
        assert messages == []
    else:
        (message,) = messages
        assert message.startswith(f"the run has work for {processes} processes at a time (cores={cores}, ")
        assert "and 2 cores are available" in message
        assert "\n" not in message


def config_of(name):
    return resumable_config(name, collect_ahead=True, update_per_step=0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs on one core, by the name of the policy."""
    out = tmp_path_factory.mktemp("whole")
    return {
        name: run(config_of(name), out=out / name, show_progress=False, cores=1)
        for name in ("cvpo", "sac_lag")
    }


def test_two_cores_make_the_run_of_one_and_give_everything_back(whole, tmp_path):
    done = run(config_of("cvpo"), out=tmp_path, show_progress=False, cores=2)
    assert (whole["cvpo"].result["cores"], done.result["cores"]) == (1, 2)
    assert_same_run(whole["cvpo"].folder, done.folder)
    before = held()  # what multiprocessing starts the first time stays open
    selections = [x["env_step"] for x in done.result["selections"]]
    assert len(selections) > 2
    run(config_of("cvpo"), out=tmp_path, show_progress=False, cores=2)
    assert held() == before


@pytest.mark.parametrize(("name", "begun", "resumed"), [("cvpo", 2, 1), ("sac_lag", 1, 2)])
def test_a_run_goes_on_with_another_number_of_cores(name, begun, resumed, whole, tmp_path, monkeypatch):
    """Its last snapshot has a selection whose verdict is to come, and a collect under way."""
    monkeypatch.setattr(snapshot, "TIME_SHARE", np.inf)
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    calls = itertools.count()
    monkeypatch.setattr(snapshot.Snapshots, "due", property(lambda self: next(calls) % 3 == 0))
    folder = run_killed(config_of(name), 800, tmp_path, cores=begun)
    saved = snapshot.read_snapshot(RunFolder(folder).snapshot)
    assert saved["trainer"]["pending"]["env_step"] < saved["trainer"]["counters"]["env_step"]
    assert saved["trainer"]["collector"]["under_way"] is not None
    done = resume(folder, show_progress=False, cores=resumed)
    assert done.result["resumed"][0]["exact"]
    assert_same_run(whole[name].folder, folder)


def test_a_selection_process_that_is_killed_is_named_and_the_run_goes_on(whole, tmp_path):
    def kill(run):
        if run.env_step >= 300:
            os.kill(run.trainer.test_collector._worker.process.pid, signal.SIGKILL)

    callback = types.SimpleNamespace(on_collect_end=kill)
    words = r"the process that plays the test episodes has ended \(exit code -9\)"
    with pytest.raises(RunStoppedError, match=words) as stop:
        run(
            config_of("sac_lag"), out=tmp_path, run_name="run", show_progress=False, cores=2,
            callbacks=[callback],
        )  # fmt: skip
    assert "to go on: fsrl-ext resume" in stop.value.__notes__[0]
    assert held()["children"] == 0
    resume(tmp_path / "run", show_progress=False, cores=1)
    assert_same_run(whole["sac_lag"].folder, tmp_path / "run")


def test_a_script_needs_no_guard(tmp_path):
    """Its processes do not run it again, although it defines what they need."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun')\n"
        "from toys.tasks import register_toys\n"
        "from toys.settings import small_config\n"
        "from fsrl_ext.experiment import run\n"
        "register_toys()\n"
        "config = small_config('ddpg_lag', steps=160, selections=1, collect_ahead=True)\n"
        f"print(run(config, out={str(tmp_path)!r}, show_progress=False, cores=2).status)\n"
    )
    path = os.pathsep.join(x for x in sys.path if x)
    out = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert out.stdout.split() == ["begun", "finished"], out.stderr
