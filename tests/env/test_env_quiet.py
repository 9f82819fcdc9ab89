"""Check in a process of their own that imports are quiet and load no simulator."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from fsrl_ext.env.quiet import quiet


def run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", program], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    "program",
    [
        "import fsrl_ext.env",
        "from fsrl_ext.env import make; make('SafetyCarCircle-v0').reset(seed=0)",
        "from fsrl_ext.env import make; make('SafetyPointGoal0-v0').reset(seed=0)",
        "from fsrl_ext.env import make; make('SafetyHopperVelocity-v1').reset(seed=0)",
    ],
)
def test_nothing_is_printed(program: str) -> None:
    result = run(program)
    assert (result.stdout, result.stderr) == ("", "")


def test_what_the_user_prints_is_printed() -> None:
    program = (
        "import sys; print('before', end=' ')\n"
        "from fsrl_ext.env import make\n"
        "env = make('SafetyCarCircle-v0'); print('after'); print('error', file=sys.stderr)"
    )
    result = run(program)
    assert (result.stdout, result.stderr) == ("before after\n", "error\n")


def test_import_and_list_load_no_simulator() -> None:
    # mujoco is not among them: gymnasium itself imports gymnasium-robotics, and that mujoco.
    heavy = ["safety_gymnasium", "pybullet", "bullet_safety_gym", "pygame", "tianshou"]
    program = (
        "import sys, fsrl_ext.env as env; assert len(env.list_tasks()) == 385; "
        f"print([m for m in {[*heavy, 'torch', 'fsrl_ext.net', 'fsrl_ext.policy']} "
        "if m in sys.modules])"
    )
    assert run(program).stdout == "[]\n"


def test_works_where_stdout_is_no_file() -> None:
    program = (
        "import io, sys; sys.stdout = io.StringIO(); sys.stderr = io.StringIO()\n"
        "from fsrl_ext.env import make\n"
        "make('SafetyCarCircle-v0').reset(seed=0); make('SafetyPointGoal0-v0').reset(seed=0)\n"
        "assert sys.stdout.getvalue() == sys.stderr.getvalue() == ''"
    )
    run(program)
    run("import os; os.close(1)\nfrom fsrl_ext.env import make; make('SafetyBallRun-v0')")


def test_quiet_silences_python_and_c_and_puts_all_back(capfd: pytest.CaptureFixture[str]) -> None:
    buffer = io.StringIO()
    with redirect_stdout(buffer):
        print("kept")
        with quiet():
            print("dropped")
            os.write(1, b"dropped\n")
            os.write(2, b"dropped\n")
    with pytest.raises(KeyError), quiet():
        raise KeyError
    os.write(1, b"back\n")
    assert buffer.getvalue() == "kept\n"
    assert capfd.readouterr() == ("back\n", "")
