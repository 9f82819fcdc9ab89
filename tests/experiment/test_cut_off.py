"""Runs that are cut off at any moment: by a signal, before the first snapshot, in the final evaluation."""

import os
import shutil
import signal
import subprocess
import sys
import types

import pytest
from toys.runs import Killed, assert_same_run, run_killed
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.errors import CheckpointError, RunFolderError
from fsrl_ext.experiment import resume, run
from fsrl_ext.experiment.training import build, session, snapshot
from fsrl_ext.experiment.training.lock import locked
from fsrl_ext.report import read_result
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.trainer.cost_trainer import CostTrainer

SETTINGS = "--steps 800 --step-per-collect 80 --num-envs 4 --hidden-sizes 16 --batch-size 32 --gamma 0.9"
SETTINGS += " --selections 2 --selection-episodes 4 --final-episodes 4 --update-per-step 0.1 --warmup-steps 0"
TRAIN = ["train", "ddpg_lag", "ToyLine-v0", "--cost-limit", "2", "--run-name", "run", "--quiet"]
TRAIN += SETTINGS.split()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing cuts off, with the snapshots that every run of a few seconds has."""
    return run(small_config("ddpg_lag"), out=tmp_path_factory.mktemp("whole"), show_progress=False)


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_snapshots_change_nothing(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot.Snapshots, "due", True)
    taken = []
    take = snapshot.Snapshots.take
    monkeypatch.setattr(snapshot.Snapshots, "take", lambda *args: (taken.append(args), take(*args)))
    done = run(small_config("ddpg_lag"), out=tmp_path / "always", show_progress=False)
    # At the start, after each of ten cycles, at the first selection, and after the last verdict.
    assert len(taken) == 13
    monkeypatch.setattr(snapshot.Snapshots, "take", lambda *args: None)
    never = run(small_config("ddpg_lag"), out=tmp_path / "never", show_progress=False)
    assert_same_run(whole.folder, done.folder)
    assert_same_run(whole.folder, never.folder)


def test_snapshots_wait_a_minute_and_longer_if_they_take_long(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(snapshot.time, "monotonic", lambda: now[0])
    trainer = types.SimpleNamespace(state_dict=dict)

    def slow(path, content, kind):
        now[0] += seconds[0]

    monkeypatch.setattr(snapshot, "write_checked", slow)
    policy = build.build_policy(small_config("ddpg_lag"))[0]
    assert not snapshot.Snapshots(tmp_path / "a", first_at_once=False).due
    snapshots = snapshot.Snapshots(tmp_path / "a", first_at_once=True)
    seconds = [0.0]
    for seconds[0], pause in ((0.5, 60.0), (3.0, 150.0)):
        assert snapshots.due
        snapshots.take(policy, trainer, dict)
        now[0] += pause - 0.1
        assert not snapshots.due
        now[0] += 0.2


def test_a_run_with_its_config_alone_begins_again(whole, tmp_path):
    folder = run_killed(small_config("ddpg_lag"), 300, tmp_path)
    files = RunFolder(folder)
    files.snapshot.unlink()
    (files.checkpoints / ".last.pt.0123456789abcdef.tmp").write_bytes(b"half")
    (folder / ".mine.tmp").write_bytes(b"not ours")
    done = resume(folder, show_progress=False)
    assert done.result["resumed"] == [{"env_step": 0, "exact": True}]
    assert_same_run(whole.folder, folder)
    assert [path.name for path in folder.rglob(".*")] == [".mine.tmp"]


def test_a_run_that_began_from_a_policy_begins_again_from_the_same_one(whole, tmp_path):
    origin = shutil.copytree(whole.folder, tmp_path / "origin")
    config = small_config("ddpg_lag", steps=160, selections=1)
    first = run(config, init_from=origin, out=tmp_path, run_name="first", show_progress=False)
    folder = tmp_path / "cut"
    folder.mkdir()
    shutil.copy(first.folder / "config.json", folder)
    assert resume(folder, show_progress=False).result["last"] == first.result["last"]
    assert_same_run(first.folder, folder)
    with pytest.raises(RunFolderError, match="has finished"):
        resume(folder)
    (folder / "result.json").unlink()
    with pytest.raises(RunFolderError, match="has policies but no snapshot to go on from"):
        resume(folder)
    shutil.rmtree(folder / "checkpoints")
    shutil.copy(RunFolder(origin).last, RunFolder(origin).best)
    with pytest.raises(CheckpointError, match="has changed since the run began from it"):
        resume(folder)
    assert (folder / "progress.csv").exists()
    (folder / "checkpoints").symlink_to(origin / "checkpoints")
    with pytest.raises(RunFolderError, match=r"checkpoints is a symbolic link"):
        resume(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"command": "x", "policy": "cvpo"}'])
def test_a_config_that_cannot_be_used_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"config\.json is damaged or edited") as refusal:
        resume(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("ending", [Killed, KeyboardInterrupt])
def test_a_final_evaluation_that_was_cut_off_is_finished(ending, whole, tmp_path, monkeypatch):
    start, calls = session.Session._start_final, []

    def cut_off(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:  # the first is the last policy, the second the best one
            raise ending
        return start(*args, **kwargs)

    arguments = {"out": tmp_path, "run_name": "run", "show_progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "_start_final", cut_off)
        patch.setattr(session.Evaluation, "is_better_than", lambda self, other: other is None)
        if ending is Killed:
            with pytest.raises(Killed):
                run(small_config("ddpg_lag"), **arguments)
        else:
            done = run(small_config("ddpg_lag"), **arguments)
            assert (done.status, done.resumable) == ("interrupted", True)
            assert "best" not in done.result
        expected = run(small_config("ddpg_lag"), out=tmp_path / "other", show_progress=False)
    monkeypatch.setattr(CostTrainer, "training_step", lambda self: pytest.fail("training is over"))
    done = resume(tmp_path / "run", show_progress=False)
    assert done.result["resumed"] == [{"env_step": 800, "exact": True}]
    assert_same_run(expected.folder, done.folder)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_every_ending_signal_is_an_interrupt(name, code, tmp_path, monkeypatch, capfd):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    collect, save = CostTrainer._collect_training_data, session.save_checkpoint

    def until(self):
        if self.env_step >= 240:
            os.kill(os.getpid(), number)
        return collect(self)

    def saved_again(path, *args, **kwargs):
        # A second signal comes while the newest policy is saved.
        if path.name == "last.pt":
            os.kill(os.getpid(), number)
        save(path, *args, **kwargs)

    monkeypatch.setattr(CostTrainer, "_collect_training_data", until)
    monkeypatch.setattr(session, "save_checkpoint", saved_again)
    assert main([*TRAIN, "--out", str(tmp_path)]) == code
    out, err = capfd.readouterr()
    assert out.splitlines() == [f"interrupted after 240 steps; to go on: fsrl-ext resume {tmp_path / 'run'}"]
    assert err == ""
    assert read_result(tmp_path / "run")["status"] == "interrupted"
    assert RunFolder(tmp_path / "run").last.exists()
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored(capsys):
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["resume", "nowhere"]) == 2
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("moment", ["before the folder", "after the config"])
def test_an_interrupt_while_a_run_is_built_is_one_line(moment, tmp_path, monkeypatch, capsys):
    name = "build_policy" if moment == "before the folder" else "train_collector"
    with monkeypatch.context() as patch:
        patch.setattr(build, name, interrupt)
        assert main([*TRAIN, "--out", str(tmp_path)]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    if moment == "before the folder":
        assert err == "fsrl-ext: interrupted\n"
        assert list(tmp_path.iterdir()) == []
    else:
        assert err == f"fsrl-ext: interrupted; to go on: fsrl-ext resume {tmp_path / 'run'}\n"
        assert resume(tmp_path / "run", show_progress=False).status == "finished"


def test_an_interrupt_that_an_import_turned_into_another_error_is_one(monkeypatch, capsys):
    def importing(*args, **kwargs):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None

    monkeypatch.setattr("fsrl_ext.experiment.resume", importing)
    assert main(["resume", "anything"]) == 143
    assert capsys.readouterr().err == "fsrl-ext: interrupted\n"


def test_a_run_is_trained_by_one_process_at_a_time(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    (folder / "result.json").unlink()
    with locked(RunFolder(folder)):
        with pytest.raises(RunFolderError, match="is in use: this process trains it already"):
            resume(folder)
        assert main(["resume", str(folder)]) == 2
    assert f"{folder} is in use" in capsys.readouterr().err
    assert not RunFolder(folder).lock.exists()


@pytest.mark.skipif(os.name != "posix", reason="the other process locks by fcntl")
def test_the_lock_of_another_process_ends_with_it(tmp_path):
    files = RunFolder(tmp_path)
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
    code += "print('7 on far', file=f, flush=True); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code, str(files.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with (
            pytest.raises(RunFolderError, match="is in use: process 7 on far trains it; wait for it"),
            locked(files),
        ):
            pass
        assert files.lock.exists()
        other.kill()
    with locked(files):
        assert files.lock.read_text().startswith(f"{os.getpid()} on ")
    assert not files.lock.exists()


def test_a_lock_follows_no_symbolic_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("text")
    files = RunFolder(tmp_path / "run")
    files.lock.symlink_to(tmp_path / "precious")
    with pytest.raises(RunFolderError, match="cannot be written"), locked(files):
        pass
    assert (tmp_path / "precious").read_text() == "text"


def test_without_locks_a_warning_takes_their_place(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fsrl_ext.experiment.training.lock._lock", refuse)
    with (
        pytest.warns(UserWarning, match=r"cannot be locked \(Operation not supported\)"),
        locked(RunFolder(tmp_path)),
    ):
        assert RunFolder(tmp_path).lock.exists()
