"""The example scripts run as they stand, on real environments, for a few thousand steps."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples" / "mlp"


def example(name, *arguments):
    command = [sys.executable, str(FOLDER / name), *arguments]
    out = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_car_circle_trains_and_judges(tmp_path):
    out = example("car_circle.py", "--steps", "3000", "--logdir", str(tmp_path))
    assert re.search(r"best policy: return -?[\d.]+, cost [\d.]+, limit 10; .* above it: \d+%", out), out
    assert (tmp_path / "best.pt").exists()


def test_car_circle_is_short_enough_to_read():
    assert len((FOLDER / "car_circle.py").read_text().splitlines()) <= 100


def test_ball_circle_trains_and_acts(tmp_path):
    out = example("ball_circle.py", "--steps", "2000", "--out", str(tmp_path))
    assert re.search(r"one episode: return -?[\d.]+, cost [\d.]+", out), out
    assert (tmp_path / "SafetyBallCircle-v0-cvpo-seed0-1" / "result.json").exists()


def test_point_circle_trains(tmp_path):
    out = example("point_circle.py", "--steps", "1000", "--out", str(tmp_path))
    assert "last policy" in out


def test_ball_circle_baselines_compare_with_and_without_a_limit(tmp_path):
    out = example("ball_circle_baselines.py", "--steps", "2000", "--episodes", "2", "--out", str(tmp_path))
    assert re.search(r"without a limit: return -?[\d.]+, cost [\d.]+", out), out
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"SafetyBallCircle-v0-ddpg_lag-seed0-1", "SafetyBallCircle-v0-ddpg-seed0-1"}


def test_point_circle_sac_lag_trains_and_judges():
    out = example("point_circle_sac_lag.py", "--steps", "1000", "--selections", "1")
    assert re.search(r"last policy: return -?[\d.]+, cost [\d.]+, limit 25, multiplier [\d.]+", out), out


def test_point_goal_cpo_trains_and_judges():
    arguments = ("--steps", "4000", "--step-per-collect", "2000", "--selections", "1")
    out = example("point_goal_cpo.py", *arguments)
    assert re.search(r"last policy: return -?[\d.]+, cost [\d.]+, limit 25; \d+% of training", out), out


def test_point_goal_two_costs_trains_and_judges():
    arguments = ("--steps", "1000", "--step-per-collect", "1000", "--selections", "1", "--num-envs", "2")
    out = example("point_goal_two_costs.py", *arguments)
    assert re.search(r"hazards: cost [\d.]+, limit 25\nvases: cost [\d.]+, limit 25", out), out


def test_cpo_convex_sets_trains_an_algorithm_of_its_own(tmp_path):
    out = example("cpo_convex_sets.py", "--steps", "6000", "--out", str(tmp_path))
    assert "last policy" in out
    assert (tmp_path / "SafetyBallCircle-v0-gentle_cpo-seed0-1" / "result.json").exists()
