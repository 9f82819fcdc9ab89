"""The scripts about meta-learning run as they stand, on real environments, for a few thousand steps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "meta"


def example(name, *arguments):
    command = [sys.executable, str(FOLDER / name), *arguments]
    out = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr
    return out.stdout


@pytest.mark.slow
def test_point_stcircle_adapts_and_draws(tmp_path):
    small = ("--steps", "3600", "--step-per-collect", "300", "--adapt-steps", "1", "--episodes", "2")
    out = example("point_stcircle.py", *small, "--out", str(tmp_path))
    assert re.search(r"before: return -?[\d.]+, cost [\d.]+\nafter:  return -?[\d.]+, cost [\d.]+", out), out
    assert "SafetyPointStcircle2-v0: radius 2." in out
    folder = tmp_path / "SafetyPointStcircle-meta_cpo-seed0-1"
    assert (folder / "trajectories.png").stat().st_size > 10_000
    again = example("point_stcircle.py", "--run", str(folder), "--adapt-steps", "1", "--episodes", "2")
    assert again == out[out.index("\nSafetyPointStcircle2") :]  # adapted alike, nothing trained


@pytest.mark.slow
def test_the_trained_meta_policy_adapts_to_a_larger_circle(tmp_path):
    picture = tmp_path / "adapted.png"
    trained = ("--run", str(FOLDER / "point_stcircle.pt"), "--adapt-steps", "5", "--picture", str(picture))
    out = example("point_stcircle.py", *trained, "--episodes", "5")
    (before, _), (after, cost) = (
        map(float, re.search(rf"{when}: +return ([\d.]+), cost ([\d.]+)", out).groups())
        for when in ("before", "after")
    )
    assert after > before + 1
    assert cost <= 25
    assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_car_stbutton_compares_on_the_held_out_tasks(tmp_path):
    small = (
        "--steps",
        "600",
        "--step-per-collect",
        "60",
        "--adapt-steps",
        "1",
        "--episodes",
        "1",
        "--tasks",
        "3",
    )
    out = example("car_stbutton.py", *small, "--out", str(tmp_path))
    for policy in ("meta_cpo", "multitask_cpo"):
        assert f"{policy}: 3 tasks outside of the training range" in out
    assert len(re.findall(r"after 1 step  ", out)) == 2, out
