"""Sweeps on Ray: killed, interrupted, continued, failed and tuned."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toys.runs import assert_same_run
from toys.settings import OFFPOLICY
from toys.sweeps import TASK, small_plan, start_driver, wait_until

from fsrl_ext.errors import RunFolderError
from fsrl_ext.experiment import Resources, run, run_plan, sweep
from fsrl_ext.experiment.sweeps.folder import StudyFolder
from fsrl_ext.experiment.sweeps.objective import FAILED
from fsrl_ext.experiment.training.folder import has_finished
from fsrl_ext.experiment.training.lock import locked, trained_by
from fsrl_ext.report import read_result
from fsrl_ext.report.folder import RunFolder

EXAMPLE = Path(__file__).parents[2] / "examples" / "tuning.py"
NAMES = [planned.name for planned in small_plan("study").runs]


def children_of(folder):
    """The processes of runs whose log is in a study's folder."""
    logs = StudyFolder(folder).logs
    open_files = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            open_files.append((int(process.name), os.readlink(process / "fd" / "2")))
        except OSError:  # it has ended, or is another user's
            continue
    return [number for number, target in open_files if Path(target).parent == logs]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study whose driver was killed by SIGKILL, started again, and interrupted after its first whole run.

    :return: its folder, and what the interrupted driver printed.
    """
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("sweep") / "study"
    study = StudyFolder(folder)
    driver = start_driver(folder)
    wait_until(lambda: any(study.run(name).config.is_file() for name in NAMES) or driver.poll() is not None)
    driver.kill()
    driver.communicate()
    driver = start_driver(folder)
    lines = []
    for line in driver.stderr:
        lines.append(line)
        if line.startswith("finished"):
            driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    assert driver.returncode == -signal.SIGINT, lines
    return folder, "".join(lines)


@pytest.fixture(scope="module")
def address():
    """The address of a cluster of two nodes with one core each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    nodes.shutdown()


@pytest.fixture(scope="module")
def continued(killed, address):
    """The outcome of the same study, and of a run that fails, on the cluster."""
    folder, _ = killed
    before = {name: trained_by(RunFolder(folder / name)) for name in NAMES}
    assert set(before.values()) == {None}
    whole = {
        name: (folder / name / "result.json").stat().st_mtime_ns
        for name in NAMES
        if has_finished(RunFolder(folder / name))
    }
    outcome = run_plan(small_plan(folder, failing=True, address=address), show_progress=False)
    return folder, outcome, whole


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_go_on_and_leaves_no_process(killed):
    folder, errors = killed
    assert errors.rstrip().endswith("KeyboardInterrupt\nto go on: fsrl-ext sweep small")
    assert "the runs are being interrupted" in errors
    assert re.match(r"started \S+ \([01] finished, 0 failed, 1 running, [23] waiting\)\n", errors)
    assert children_of(folder) == []
    assert sorted(path.name for path in folder.iterdir() if path.name not in NAMES) == ["logs"]


@pytest.mark.slow
def test_the_same_sweep_goes_on_and_a_failing_run_does_not_stop_it(continued):
    folder, outcome, whole = continued
    assert sorted(outcome.finished) == sorted(NAMES)
    assert (outcome.failed, outcome.stopped, outcome.unfinished) == (("failing",), (), ())
    assert whole, "a run had finished before"
    for name, time in whole.items():  # it was not trained again
        assert (folder / name / "result.json").stat().st_mtime_ns == time
    assert "ZeroDivisionError" in StudyFolder(folder).end_of_log("failing")
    assert "ToyFailing-v0 at environment step" in StudyFolder(folder).end_of_log("failing")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, "failing", "logs"])


@pytest.mark.slow
@pytest.mark.parametrize("planned", small_plan("study").runs, ids=lambda planned: planned.name)
def test_every_run_is_the_one_that_a_single_process_trains(planned, continued, tmp_path):
    run(planned.config, out=tmp_path, run_name="alone", show_progress=False)
    assert_same_run(tmp_path / "alone", continued[0] / planned.name)
    assert read_result(continued[0] / planned.name)["command"] == "fsrl-ext sweep small"


@pytest.mark.slow
def test_a_complete_sweep_starts_nothing(continued, monkeypatch):
    folder, _, _ = continued
    monkeypatch.setitem(sys.modules, "ray", None)  # an import would fail
    outcome = run_plan(small_plan(folder), show_progress=False)
    assert outcome.finished == tuple(NAMES)


@pytest.mark.slow
def test_other_settings_are_refused_by_name(continued):
    folder, _, _ = continued
    plan = small_plan(folder)
    first = dataclasses.replace(plan.runs[0], config=dataclasses.replace(plan.runs[0].config, steps=900))
    with pytest.raises(RunFolderError, match="td3_lag-0 has other settings than planned: steps is 800 there"):
        run_plan(dataclasses.replace(plan, runs=(first, *plan.runs[1:])), show_progress=False)


def test_two_sweeps_in_one_folder_are_refused(tmp_path):
    with (
        locked(RunFolder(tmp_path)),
        pytest.raises(RunFolderError, match=rf"{tmp_path} is in use: the sweep of process {os.getpid()} on"),
    ):
        run_plan(small_plan(tmp_path), show_progress=False)


@pytest.mark.slow
def test_tuning_stops_runs_early_and_goes_on_with_them(address, tmp_path):
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    settings = {
        **OFFPOLICY, "policy": "td3_lag", "task": TASK, "cost_limit": 8.0, "steps": 1200, "selections": 3,
        "critic_lr": tune.grid_search([2e-3]),
    }  # fmt: skip
    # Everything that comes to the first rung is stopped there.
    scheduler = ASHAScheduler(time_attr="env_step", max_t=400, grace_period=400)
    resources = Resources(address=address)
    stopped = sweep(settings, out=tmp_path, scheduler=scheduler, resources=resources, show_progress=False)
    assert (stopped.finished, stopped.failed, stopped.unfinished) == ((), (), ())
    (name,) = stopped.stopped
    assert not has_finished(RunFolder(tmp_path / name))
    whole = sweep(settings, out=tmp_path, resources=resources, show_progress=False)
    assert (whole.finished, whole.best) == ((name,), name)
    result = read_result(tmp_path / name)
    values = [x["return_mean"] for x in result["selections"] if x["feasible"]]
    assert len(result["resumed"]) == 1
    assert whole.objectives[name] == max(values)
    assert FAILED < stopped.objectives[name] <= max(values)


@pytest.mark.slow
def test_the_example_of_tuning_runs(address, tmp_path):
    pytest.importorskip("optuna")
    pytest.importorskip("bullet_safety_gym")
    assert len(EXAMPLE.read_text().splitlines()) <= 60
    arguments = ["--steps", "300", "--samples", "1", "--out", str(tmp_path / "study"), "--address", address]
    out = subprocess.run([sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "1 finished, 0 stopped early" in out.stdout


def test_settings_that_a_policy_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="td3_lag has no setting 'kl_bound'"):
        sweep({"policy": "td3_lag", "task": TASK, "kl_bound": 0.1}, out=tmp_path)
    with pytest.raises(ValueError, match="settings must have 'task', got policy"):
        sweep({"policy": "td3_lag"}, out=tmp_path)
