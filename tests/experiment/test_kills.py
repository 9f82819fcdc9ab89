"""A sample of ``benchmarks/kills.py``: a resumed run shows no trace of the kill of its process."""

import importlib.util
import multiprocessing
import sys
from pathlib import Path

import pytest

from fsrl_ext.experiment.training.checkpoint import write_checked

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.fixture(scope="module")
def kills():
    """The script, as a module whose processes are forks of this one; its runs are shorter."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes that are forked are the quick ones")
    spec = importlib.util.spec_from_file_location("kills", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module  # its dataclass looks there for its own module
    spec.loader.exec_module(module)
    module.START_METHOD = "fork"
    module._SMALL.update(steps=520, selections=2, update_per_step=0.05)
    return module


@pytest.fixture(scope="module")
def whole(kills, tmp_path_factory):
    return kills.train_whole(tmp_path_factory.mktemp("runs"), "td3_lag", "plain")


@pytest.mark.parametrize(
    ("moment", "where", "resumed"),
    [
        ("before the first snapshot", 0.0, 0),
        ("while progress.csv gets new columns", 1.0, None),
        ("random", 0.5, None),
    ],
)
def test_a_kill_leaves_no_trace(moment, where, resumed, kills, whole, tmp_path):
    kill = kills.Kill(
        number=0, policy="td3_lag", variant="plain", every=3, moment=moment, where=where, after=False
    )
    outcome = kills.try_kill(tmp_path, kill, *whole)
    assert outcome["different"] == []
    assert outcome["resumed"][0]["exact"]
    if resumed is not None:
        assert outcome["resumed"] == [{"env_step": resumed, "exact": True}]


def test_differences_are_seen(kills, whole, tmp_path):
    folder, _ = whole
    assert kills.differences(folder, folder) == []
    other = tmp_path / "other"
    kills.shutil.copytree(folder, other)
    for name, expected in (("progress.csv", "progress.csv"), ("result.json", "result.json")):
        text = (other / name).read_text()
        (other / name).write_text(text.replace("0.", "1.", 1))
        assert expected in kills.differences(folder, other)
    last = kills.RunFolder(other).last
    data = kills.read_checkpoint(last)
    del data["fsrl_ext_checkpoint"], data["versions"]
    next(x for x in data["policy"].values() if isinstance(x, kills.torch.Tensor)).view(-1)[0] += 1
    write_checked(last, data, kind="checkpoint")
    (other / ".last.pt.0123456789abcdef.tmp").touch()
    assert kills.differences(folder, other)[-3:] == [
        "last.pt", "result.json", ".last.pt.0123456789abcdef.tmp is left over",
    ]  # fmt: skip


def test_every_moment_and_policy_has_its_kills(kills):
    drawn = kills.draw_kills(60, 0)
    assert {kill.moment for kill in drawn} == {"random", *kills.MOMENTS}
    assert {kill.policy for kill in drawn} == set(kills.algorithms())
    assert drawn == kills.draw_kills(60, 0) != kills.draw_kills(60, 1)
