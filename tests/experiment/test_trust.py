"""What comes from somebody else, or was damaged, is refused in one line before it is used."""

import contextlib
import json
import os
import random
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from toys.policies import assert_same_state
from toys.runs import resumable_config, run_killed

from fsrl_ext.cli import main
from fsrl_ext.errors import CheckpointError, RunFolderError
from fsrl_ext.experiment import evaluate, load_policy, resume
from fsrl_ext.experiment.files import content
from fsrl_ext.experiment.files.archive import write_archive
from fsrl_ext.experiment.saved.film import record_video
from fsrl_ext.experiment.training.checkpoint import FORMATS, read_checked, read_checkpoint, write_checked
from fsrl_ext.experiment.training.snapshot import read_snapshot
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.links import check_links
from fsrl_ext.report.records import NOTED, RESULT, read_record

TRAILER = len(b"\nfsrl_ext sha256 ") + 64 + 1


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run that was killed, with a snapshot."""
    return run_killed(resumable_config("ddpg_lag"), 800, tmp_path_factory.mktemp("killed"))


@pytest.fixture
def folder(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "run")


def best(folder):
    return folder / "checkpoints" / "best.pt"


def edit(path, change, kind="checkpoint"):
    """Write a file anew with a right digest, after a change of its content."""
    data = read_checked(path, kind=kind)
    change(data)
    with path.open("wb") as file:
        write_archive(file, data)


def one_line(error):
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("name", ["best.pt", "resume.pt"])
def test_no_byte_can_be_wrong(killed, tmp_path, name):
    whole = (killed / "checkpoints" / name).read_bytes()
    draw, path = random.Random(0), tmp_path / name
    start = int.from_bytes(whole[-TRAILER - 6 : -TRAILER - 2], "little")
    places = draw.sample(range(len(whole)), 40) + draw.sample(range(start, len(whole)), 60)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged") as error:
            read_checkpoint(path) if name == "best.pt" else read_snapshot(path)
        assert one_line(error).startswith(str(path))
    for end in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="damaged or"):
            read_checkpoint(path) if name == "best.pt" else read_snapshot(path)


def test_a_file_without_digest_is_read_if_both_of_its_directories_agree(folder, tmp_path):
    reference = read_checkpoint(best(folder))
    path = tmp_path / "old.pt"
    torch.save({**reference, "fsrl_ext_checkpoint": 1}, path)
    whole, equal = path.read_bytes(), 0
    assert_same_state(read_checkpoint(path)["policy"], reference["policy"])
    start = int.from_bytes(whole[-6:-2], "little")
    for place in random.Random(1).sample(range(start, len(whole)), 100):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            assert_same_state(read_checkpoint(path)["policy"], reference["policy"])
            equal += 1
    assert 0 < equal < 50


def test_the_format_says_whether_there_must_be_a_digest(folder):
    path = best(folder)
    path.write_bytes(path.read_bytes()[:-TRAILER])
    with pytest.raises(CheckpointError, match=f"no digest, which its format {FORMATS['checkpoint']} needs"):
        load_policy(folder)


def test_a_zip_that_reads_in_two_ways_is_refused(folder, tmp_path):
    data = read_checkpoint(best(folder))
    path = tmp_path / "two.pt"
    torch.save({**data, "fsrl_ext_checkpoint": 1}, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("two/data/0", archive.read("two/data/0"))
    with pytest.raises(CheckpointError, match="it has two records of one name"):
        read_checkpoint(path)


class Foreign:
    """An object whose pickle runs code."""

    def __reduce__(self):
        return (os.system, ("touch sprung",))


def test_a_pickled_object_is_named_and_never_loaded(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in ({"x": Foreign()}, {"x": np.float64(1.0)}, {"x": {1, 2}}):
        with best(folder).open("wb") as file:
            write_archive(file, data)
        with pytest.raises(
            CheckpointError, match=r"holds a pickled object of [\w.]+, which fsrl_ext never"
        ) as e:
            load_policy(folder)
        assert "weights_only" not in one_line(e)
    assert not (tmp_path / "sprung").exists()


def test_what_could_not_be_read_is_not_written(folder, tmp_path):
    data = read_checkpoint(best(folder))
    with pytest.raises(TypeError, match=r"policy\.more is an object of builtins\.set"):
        write_checked(tmp_path / "x.pt", {**data, "policy": {"more": {1}}}, kind="checkpoint")
    assert not (tmp_path / "x.pt").exists()


def set_in(*path, value):
    def change(data):
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = value

    return change


def without(*path):
    def change(data):
        for name in path[:-1]:
            data = data[name]
        del data[path[-1]]

    return change


def first_weight(value):
    return lambda data: data["policy"]["actor.body.0.weight"].fill_(value)


EDITS = {
    "no config": (without("config"), "config is missing"),
    "no spec": (without("spec", "obs_dim"), r"spec\.obs_dim is missing"),
    "no setting": (without("config", "training", "buffer_size"), r"config\.training\.buffer_size is missing"),
    "more": (set_in("more", value=1), "more is no part of it"),
    "negative": (set_in("counters", "env_step", value=-1), r"counters\.env_step must be a whole number"),
    "nan": (first_weight(float("nan")), r"policy\.actor\.body\.0\.weight holds NaN or infinity"),
    "inf": (first_weight(float("inf")), r"policy\.actor\.body\.0\.weight holds NaN or infinity"),
    "weight": (set_in("policy", "actor.body.0.weight", value=3), r"actor\.body\.0\.weight must be a tensor"),
    "sizes": (set_in("config", "training", "hidden_sizes", value=[10**7, 10**7]), "far larger networks"),
    "width": (set_in("config", "training", "hidden_sizes", value=[10**30]), "hidden_sizes must be a whole"),
    "obs": (set_in("spec", "obs_dim", value=10**15), r"spec\.obs_dim must be a whole number from 1 to"),
    "type": (set_in("config", "policy_config", "gamma", value="x"), "gamma must be a number, got 'x'"),
    "device": (set_in("config", "device", value="text"), "device must be the name of a device, got 'text'"),
    "bounds": (set_in("spec", "action_high", value=[10**40]), "action_space must be bounded"),
    "threads": (set_in("config", "threads", value=10**9), "threads must be at most 4,096"),
    "task": (set_in("config", "task", value=3), r"config\.task must be text, got 3"),
    "versions": (set_in("versions", value=None), "its format or its versions are missing"),
    "moments": (set_in("optimisers", "actor_optim", "state", 0, "exp_avg", value=torch.zeros(2)), "exp_avg"),
    "rate": (set_in("optimisers", "actor_optim", "param_groups", 0, "lr", value=-1.0), r"\.lr must be a"),
    "optimiser": (without("optimisers", "critic_optim"), r"optimisers\.critic_optim is missing"),
    "extra": (set_in("policy", "_extra_state", value=[1]), r"policy\._extra_state must be a dictionary"),
    "repeated": (
        lambda data: data["policy"].update({"actor.body.0.weight": torch.zeros(1).expand(10**13)}),
        "a tensor is larger than its data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_checkpoint_is_refused_with_the_part(folder, name):
    change, words = EDITS[name]
    edit(best(folder), change)
    with pytest.raises(CheckpointError, match=words) as error:
        load_policy(folder)
    assert one_line(error).startswith(str(best(folder)))


def test_a_shared_list_that_is_huge_unfolded_is_refused(folder, monkeypatch):
    assert content.MAX_ENTRIES < 10**7  # which are read within seconds
    monkeypatch.setattr(content, "MAX_ENTRIES", 10**5)
    bomb = [1]
    for _ in range(40):
        bomb = [bomb, bomb]
    endless = []
    endless.append(endless)
    for value in (bomb, endless):
        with best(folder).open("wb") as file:
            write_archive(file, {"x": value})
        with pytest.raises(CheckpointError, match="nested or shared beyond all measure"):
            load_policy(folder)


WORKER = ("trainer", "collector", "worker", "collector")  # the state of what collects ahead
SNAPSHOT_EDITS = {
    "no trainer": (without("trainer"), "trainer is missing"),
    "no buffer": (without("trainer", "collector", "buffer"), r"trainer\.collector\.buffer is missing"),
    "counter": (set_in("trainer", "counters", "env_step", value="x"), r"env_step must be a number, got 'x'"),
    "no counter": (without("trainer", "counters", "epoch"), "does not fit the run .*'epoch'"),
    "state": (set_in("trainer", "collector", "buffer", "sampling", 0, "state", value=1), r"\[0\]\.state"),
    "actions": (set_in(*WORKER, "history", "actions", 0, value=1), r"\[0\] must be an array"),
    "command": (set_in("run", "command", value=None), r"run\.command must be text"),
    "config": (set_in("run", "config", "threads", value=10**9), "threads must be at most 4,096"),
}  # fmt: skip


@pytest.mark.parametrize("name", SNAPSHOT_EDITS)
def test_an_edited_snapshot_is_refused_with_the_part(folder, name):
    change, words = SNAPSHOT_EDITS[name]
    edit(folder / "checkpoints" / "resume.pt", change, kind="snapshot")
    with pytest.raises(CheckpointError, match=words) as error:
        resume(folder, show_progress=False)
    one_line(error)


def test_edited_json_files_are_refused_with_the_part(folder):
    path = folder / "config.json"
    good = json.loads(path.read_text())
    assert read_record(path, NOTED)["steps"] == good["steps"]
    for text, words in (
        ("{", "config.json is damaged or edited: Expecting"),
        ("[]", "must be a dictionary"),
        ("[" * 100_000, "nested beyond all measure"),
        (json.dumps({**good, "cost_limit": [-1]}), r"cost_limit\[0\] must be a number >= 0, got -1"),
        (json.dumps({**good, "more": 1}), "more is no part of it"),
        (json.dumps({k: v for k, v in good.items() if k != "steps"}), "steps is missing"),
    ):
        path.write_text(text)
        with pytest.raises(RunFolderError, match=words) as error:
            read_record(path, NOTED)
        one_line(error)
    path.write_text('{"status": "finished", "selections": 3}')
    with pytest.raises(RunFolderError, match="is missing"):
        read_record(path, RESULT)


@pytest.mark.parametrize(
    "name", ["checkpoints", "checkpoints/best.pt", "checkpoints/resume.pt", "progress.csv", "tensorboard",
             "result.json", "curves.png", "config.json"],
)  # fmt: skip
def test_a_run_does_not_go_on_through_a_link(folder, tmp_path, name):
    target, link = tmp_path / "elsewhere", folder / name
    if link.exists():
        link.rename(target)
    link.symlink_to(target)
    before = target.read_bytes() if target.is_file() else None
    with pytest.raises(RunFolderError, match=rf"{name} is a symbolic link to .*elsewhere.*its own folder"):
        resume(folder, show_progress=False)
    assert (target.read_bytes() if target.is_file() else None) == before


def test_a_run_folder_may_be_reached_through_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder.parent)
    (folder / "notes").symlink_to(tmp_path)
    check_links(RunFolder(tmp_path / "link" / "run"))


MODULE = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
from fsrl_ext.env import register_task
from toys.envs import LineEnv
register_task("{id}", entry_point=LineEnv, max_episode_steps=20)
"""


def test_a_module_is_imported_only_by_permission(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stranger.py").write_text(MODULE.format(id="Strange-v0"))
    ran = tmp_path / "stranger.ran"
    task = "stranger:Strange-v0"
    edit(best(folder), set_in("config", "task", value=task))
    snapshot = folder / "checkpoints" / "resume.pt"
    edit(snapshot, set_in("run", "config", "task", value=task), kind="snapshot")
    video = str(tmp_path / "film.gif")
    for use in (
        lambda: evaluate(folder, episodes=1),
        lambda: record_video(folder, video),
        lambda: resume(folder, show_progress=False),
    ):
        with pytest.raises(
            CheckpointError, match="would import the module stranger and run its code"
        ) as error:
            use()
        assert "--allow-import" in one_line(error)
        assert "allow_import=True" in one_line(error)
    assert main(["evaluate", str(folder), "--episodes", "1"]) == 2
    assert main(["resume", str(folder), "--quiet"]) == 2
    assert main(["evaluate", str(folder), "--episodes", "1", "--task", "ToyLine-v0"]) == 0
    assert load_policy(folder) is not None
    assert not ran.exists()
    assert "--allow-import" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--episodes", "1", "--allow-import"]) == 0
    assert ran.exists()
    # What has been imported already needs no permission.
    assert evaluate(folder, episodes=1).returns.shape == (1,)
    del sys.modules["stranger"]


def test_a_task_that_was_typed_needs_no_permission(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "typed.py").write_text(MODULE.format(id="Typed-v0"))
    assert main(["evaluate", str(folder), "--episodes", "1", "--task", "typed:Typed-v0"]) == 0
    assert (tmp_path / "typed.ran").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_policy_of_a_device_that_is_not_here_says_what_loads_it(folder):
    edit(best(folder), set_in("config", "device", value="cuda"))
    with pytest.raises(CheckpointError, match=r'device="cpu" \(--device cpu\) loads it on the CPU') as error:
        load_policy(folder)
    one_line(error)
    load_policy(folder, device="cpu")
    with pytest.raises(ValueError, match="device 'cuda' cannot be used"):
        evaluate(folder, device="cuda")
    with pytest.raises(ValueError, match="device 'meta' cannot be used"):
        load_policy(folder, device="meta")
