"""The example scripts run as they stand, on real environments, for a few thousand steps."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples" / "mlp"


def test_car_circle_trains_and_judges(tmp_path):
    out = subprocess.run(
        [sys.executable, str(FOLDER / "car_circle.py"), "--steps", "3000", "--logdir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert out.returncode == 0, out.stderr
    found = re.search(
        r"best policy: return (-?[\d.]+), cost ([\d.]+), limit 10; .* above it: \d+%", out.stdout
    )
    assert found, out.stdout
    assert (tmp_path / "best.pt").exists()


def test_car_circle_is_short_enough_to_read():
    assert len((FOLDER / "car_circle.py").read_text().splitlines()) <= 100
