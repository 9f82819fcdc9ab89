"""What happens to a run when its disk, its folder, its environments or its processes fail."""

import contextlib
import os
import resource
import shutil
import signal
import types

import numpy as np
import pytest
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.cli.failures import environment_part, explained
from fsrl_ext.errors import RunFolderError, RunStoppedError
from fsrl_ext.experiment import load_policy, resume, run
from fsrl_ext.experiment.training import logger as logger_module
from fsrl_ext.experiment.training import session
from fsrl_ext.experiment.training.logger import RunLogger
from fsrl_ext.report import files as files_module
from fsrl_ext.report import read_progress, read_result
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.progress import read_rows

TRAIN = ["--cost-limit", "2", "--run-name", "run", "--quiet", "--steps", "800", "--step-per-collect", "80"]
TRAIN += ["--num-envs", "4", "--hidden-sizes", "16", "--selections", "2", "--selection-episodes", "4"]
TRAIN += ["--final-episodes", "4", "--update-per-step", "0.1", "--warmup-steps", "0", "--batch-size", "32"]


def start(tmp_path, task=None, **settings):
    arguments = {"out": tmp_path, "run_name": "run", "show_progress": False}
    arguments |= {key: settings.pop(key) for key in ("callbacks", "cores") if key in settings}
    return run(small_config("ddpg_lag", task, **settings), **arguments)


def full_for(name):
    """Return a stand-in for ``os.fsync``: the disk is full for files whose name begins like this."""
    sync = os.fsync

    def fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.basename(path).startswith(name):
            raise OSError(28, "No space left on device")
        sync(descriptor)

    return fsync


@contextlib.contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_the_run_which_goes_on_when_there_is_room(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files_module.os, "fsync", full_for(".best.pt"))
        with pytest.raises(
            RunStoppedError, match=r"best\.pt cannot be written: No space left .*; make room"
        ) as stop:
            start(tmp_path)
    (note,) = stop.value.__notes__
    assert note.startswith(
        "ToyLine-v0 at environment step 800; the newest policy could not be saved; to go on: "
    )
    assert note.endswith(f"fsrl-ext resume {tmp_path / 'run'}")
    assert [path.name for path in tmp_path.rglob(".*")] == []
    assert resume(tmp_path / "run", show_progress=False).status == "finished"


def test_a_limit_on_the_size_of_files_is_named(tmp_path):
    with (
        files_of_at_most(8000),
        pytest.warns(UserWarning, match="no snapshot at"),
        pytest.raises(RunStoppedError, match=r"last\.pt cannot be written: File too large; .*ulimit -f"),
    ):
        start(tmp_path)
    assert len(read_progress(tmp_path / "run")["env_step"]) > 0
    assert main(["resume", str(tmp_path / "run"), "--quiet"]) == 0


def test_a_full_disk_at_the_end_leaves_the_evaluation_to_resume(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files_module.os, "fsync", full_for(".result.json"))
        with pytest.raises(RunStoppedError, match=r"result\.json cannot be written"):
            start(tmp_path)
    assert resume(tmp_path / "run", show_progress=False).result["resumed"] == [
        {"env_step": 800, "exact": True}
    ]


def test_curves_that_cannot_be_drawn_or_written_are_warnings(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session, "plot_run", refuse)
    monkeypatch.setattr(logger_module.SummaryWriter, "flush", refuse)
    with pytest.warns(UserWarning, match="run goes on|not drawn") as caught:
        done = start(tmp_path, steps=160, selections=1)
    messages = [str(w.message) for w in caught]
    assert (
        sum("curves.png was not drawn (OSError: No space left on device; make room" in m for m in messages)
        == 1
    )
    assert sum("no more events in" in m for m in messages) == 1
    assert (done.status, read_result(done.folder)["status"]) == ("finished", "finished")
    assert not RunFolder(done.folder).snapshot.exists()


def test_a_folder_that_is_deleted_while_the_run_lasts_is_named(tmp_path):
    def delete(run):
        if run.env_step >= 240:
            shutil.rmtree(run.folder.path)

    callback = types.SimpleNamespace(on_collect_end=delete)
    with pytest.raises(
        RunStoppedError, match=r"cannot be written: No such file .*removed or renamed"
    ) as stop:
        start(tmp_path, callbacks=[callback])
    gone = f"the run folder {tmp_path / 'run'} is gone, and nothing was saved"
    assert stop.value.__notes__ == [f"ToyLine-v0 at environment step 320; {gone}"]


def test_curves_that_are_deleted_while_the_run_lasts_come_back(tmp_path):
    def delete(run):
        if run.env_step == 240:
            run.folder.progress.unlink()

    done = start(tmp_path, callbacks=[types.SimpleNamespace(on_collect_end=delete)])
    assert read_progress(done.folder)["env_step"].tolist() == list(range(80, 801, 80))


def test_an_environment_that_raises_shows_its_own_traceback(tmp_path, capsys):
    assert main(["train", "ddpg_lag", "ToyFailing-v0", *TRAIN, "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (in the environment):"
    assert [line.rsplit(" ", 1)[1] for line in lines if line.startswith("  File")] == ["step", "_divide"]
    assert not any("fsrl_ext/" in line or "tianshou" in line for line in lines[:-1])
    assert lines[-1] == (
        "fsrl-ext: the environment raised ZeroDivisionError: division by zero; raised by environment 0 of "
        "the collector; ToyFailing-v0 at environment step 400; "
        f"the last good policy is {tmp_path / 'run' / 'checkpoints' / 'last.pt'}; "
        f"to go on: fsrl-ext resume {tmp_path / 'run'}"
    )
    load_policy(RunFolder(tmp_path / "run").last)
    with pytest.raises(ZeroDivisionError):  # from Python, the error itself
        resume(tmp_path / "run", show_progress=False)


def test_an_error_of_another_process_shows_the_environments_part():
    own = '  File "/mine/cart.py", line 7, in step\n    1 / 0\n    ~~^~~\n'
    text = "Traceback (most recent call last):\n"
    for file in ("/x/fsrl_ext/data/cost_env.py", "/x/gymnasium/core.py"):
        text += f'  File "{file}", line 1, in step\n    call()\n'
    error = ZeroDivisionError("division by zero")
    assert environment_part(error) is None
    error.__cause__ = type("RemoteTraceback", (Exception,), {})(f"{text}{own}ZeroDivisionError: by zero\n")
    assert environment_part(error) == f"Traceback (in the environment):\n{own}"


def test_errors_that_are_no_environments_keep_their_traceback():
    assert explained(ZeroDivisionError("ours")) is None
    assert explained(ValueError("x must be > 0")) == ("fsrl-ext: x must be > 0", 2)
    assert explained(RunStoppedError("no room")) == ("fsrl-ext: no room (see docs/runs.md)", 1)


def test_an_environment_that_ends_its_process_is_named(tmp_path):
    with pytest.raises(RunStoppedError, match=r"environments 0 to \d has ended .*exit code 3") as stop:
        start(tmp_path, "ToyExiting-v0", workers=2)
    assert "to go on: fsrl-ext resume" in stop.value.__notes__[0]
    load_policy(RunFolder(tmp_path / "run").last)


class KillsTheCollector:
    """Kills the collecting process when the second collect is over."""

    def __init__(self):
        self.collects = 0

    def on_collect_end(self, run):
        self.collects += 1
        if self.collects == 2:
            os.kill(run.trainer.train_collector._worker.process.pid, signal.SIGKILL)


def test_a_collecting_process_that_is_killed_is_named_and_the_run_goes_on(tmp_path):
    with pytest.raises(RunStoppedError, match=r"the collecting process has ended \(exit code -9\)") as stop:
        start(tmp_path, "ToyLine-v0", callbacks=[KillsTheCollector()], collect_ahead=True, cores=2)
    assert "to go on: fsrl-ext resume" in stop.value.__notes__[0]
    load_policy(RunFolder(tmp_path / "run").last)
    assert resume(tmp_path / "run", show_progress=False).status == "finished"


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("ToyLineNaN-v0", "fsrl-ext: rew of environment 0 is not finite (NaN or infinity)"),
        ("ToyLineNaNCost-v0", "fsrl-ext: cost of environment 0 is not finite (NaN or infinity)"),
    ],
)
def test_a_cost_that_is_nan_ends_the_run_as_a_reward_does(task, words, tmp_path, capsys):
    assert main(["train", "ddpg_lag", task, *TRAIN, "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(words)
    assert line.endswith(f"to go on: fsrl-ext resume {tmp_path / 'run'}")
    policy = load_policy(RunFolder(tmp_path / "run").last)
    assert all(bool(x.isfinite().all()) for x in policy.parameters())


class TestCurves:
    """``progress.csv`` and its readers."""

    @pytest.fixture
    def folder(self, tmp_path):
        return RunFolder(tmp_path)

    def log(self, logger, steps, name="loss"):
        for step in steps:
            logger.write("update/env_step", step, {name: step / 8})

    def test_new_columns_never_lose_rows(self, folder, monkeypatch):
        logger = RunLogger(folder)
        self.log(logger, range(1, 6))
        logger.flush()
        before = read_rows(folder.progress)

        def killed(source, target):
            raise SystemExit

        logger.write("test/env_step", 6, {"return": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(files_module.os, "replace", killed)
            with pytest.raises(SystemExit):
                logger.flush()
        assert read_rows(folder.progress) == before

    def test_a_line_that_was_cut_off_is_no_row(self, folder):
        logger = RunLogger(folder)
        self.log(logger, range(1, 4))
        logger.flush()
        state = logger.state_dict()
        whole = folder.progress.read_bytes()
        folder.progress.write_bytes(whole + b"4,0.")
        assert read_progress(folder.path)["env_step"].tolist() == [1, 2, 3]
        again = RunLogger(folder, state=state)
        assert folder.progress.read_bytes() == whole
        again.finalize()

    def test_a_row_that_was_open_goes_on(self, folder):
        whole, cut = RunFolder(folder.path / "whole"), RunFolder(folder.path / "cut")
        state = None
        for place, steps in ((whole, [1, 2, 3, 4]), (cut, [1, 2, 3])):
            place.path.mkdir()
            logger = RunLogger(place)
            self.log(logger, steps)
            if place is cut:
                state = logger.state_dict()
                self.log(logger, [4, 5, 6])
            else:
                logger.write("test/env_step", 4, {"return": 1.0})
            logger.flush()
        logger = RunLogger(cut, state=state)
        self.log(logger, [4])
        logger.write("test/env_step", 4, {"return": 1.0})
        logger.finalize()
        assert cut.progress.read_bytes() == whole.progress.read_bytes()

    def test_numbers_that_come_later_are_in_the_row_of_their_step(self, folder):
        logger = RunLogger(folder)
        self.log(logger, [1])
        logger.begin_row(2)
        self.log(logger, [3, 4])
        for step in (2, 1):
            logger.write("test/env_step", step, {"return": step / 8})
        logger.write("test/env_step", 4, {"return": 0.5})  # the row that is open
        logger.finalize()
        assert read_rows(folder.progress)[1] == [
            {"env_step": 1.0, "update/loss": 0.125, "test/return": 0.125},
            {"env_step": 2.0, "test/return": 0.25},
            {"env_step": 3.0, "update/loss": 0.375},
            {"env_step": 4.0, "update/loss": 0.5, "test/return": 0.5},
        ]

    def test_lost_rows_are_told(self, folder):
        folder.progress.write_bytes(b"env_step,update/loss\n1,0.5\n")
        with pytest.warns(UserWarning, match=r"has 1 of the 3 rows that it had; the others are lost"):
            RunLogger(folder, state={"rows": 3, "row": {}})
        folder.progress.write_bytes(b"env_step,update/loss\n1,x\n")
        with pytest.raises(RunFolderError, match=r"damaged in line 2 .*; delete the file to go on without"):
            RunLogger(folder, state={"rows": 1, "row": {}})

    @pytest.mark.parametrize(
        ("content", "line"),
        [(b"env_step,a\n1,2\n3,x\n", 3), (b"env_step,a\n1\n", 2), (b"env_step\n1,2\n", 2), (b"a\n\0\n", 2)],
    )
    def test_damage_is_one_line(self, folder, content, line):
        folder.progress.write_bytes(content)
        with pytest.raises(RunFolderError, match=rf"progress\.csv is damaged in line {line} ") as refusal:
            read_progress(folder.path)
        assert len(str(refusal.value).splitlines()) == 1

    def test_a_file_without_a_complete_line_has_no_columns(self, folder):
        folder.progress.write_bytes(b"env_st")
        assert read_progress(folder.path) == {}
        assert np.size(read_rows(folder.progress)[1]) == 0
