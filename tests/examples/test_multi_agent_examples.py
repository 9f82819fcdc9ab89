"""The example of several agents runs as it stands, for a few steps."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "multi_agent" / "ant_velocity.py"


def test_the_ant_trains_and_is_judged(tmp_path):
    pytest.importorskip("mujoco")
    arguments = ["--steps", "400", "--episodes", "1", "--agents", "independent", "--out", str(tmp_path)]
    out = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=300
    )
    assert out.returncode == 0, out.stderr
    assert "agent_0: sees (21,), moves (4,)" in out.stdout
    assert re.search(r"team: return -?[\d.]+, cost [\d.]+, actors 2", out.stdout), out.stdout


def test_the_example_is_short_enough_to_read():
    assert len(EXAMPLE.read_text().splitlines()) <= 60
