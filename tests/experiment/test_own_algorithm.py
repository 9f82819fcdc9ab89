"""docs/your_own_algorithm.md, followed to the letter: its files installed, its commands run."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "your_own_algorithm.md"
ROOT = PAGE.parents[1]
# Runs command lines in one process, because its imports take longer than most of them, and says on both
# streams where each one has ended. The exit code is the first one that is not 0.
DRIVER = """
import shlex, sys
from fsrl_ext.cli import main
codes = []
for line in sys.argv[1:]:
    try:
        codes.append(main(shlex.split(line)[1:]))
    except SystemExit as end:  # of a help text
        codes.append(end.code)
    for stream in (sys.stdout, sys.stderr):
        print("$", codes[-1], file=stream, flush=True)
sys.exit(next(filter(None, codes), 0))
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def command(start):
    """The page's only command that begins like this."""
    (line,) = [x for block in blocks("bash") for x in block.splitlines() if x.startswith(start)]
    return line


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Writes the page's files, installs the package, and runs commands of the page beside it."""
    folder, site = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    for block in blocks("python") + blocks("toml"):
        name = re.match(r"# ([\w.]+)\n", block)
        if name is not None:
            (folder / name[1]).write_text(block)
    assert {x.name for x in folder.iterdir()} == {"sac_penalty.py", "pyproject.toml", "use.py"}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    programs = {
        "fsrl-ext": f"{sys.executable} -m fsrl_ext.cli",
        "pip": f"{sys.executable} -m pip",
        "driver": f"{sys.executable} -c {shlex.quote(DRIVER)}",
    }

    def start(line):
        program, _, rest = line.partition(" ")
        # The package goes into a folder of its own, and nothing is fetched.
        extra = (
            f" --no-deps --no-build-isolation --no-index --quiet --target {site}" if program == "pip" else ""
        )
        return subprocess.Popen(
            f"exec {programs[program]} {rest} {extra}",
            shell=True,
            cwd=folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A test run in a shell's background is told to ignore the interrupt, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def finish(process):
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def run_all(lines):
        """Exit code, output and errors of each of the lines, in a process for all of them."""
        _, out, err = finish(start(shlex.join(["driver", *lines])))
        outs, errs = (re.split(r"^\$ (\d+)\n", text, flags=re.MULTILINE) for text in (out, err))
        assert len(outs) == 2 * len(lines) + 1, err
        return [(int(code), *texts) for code, *texts in zip(outs[1::2], outs[::2], errs[::2], strict=False)]

    start.folder, start.env, start.run_all = folder, env, run_all
    code, _, err = finish(start(command("pip install")))
    assert code == 0, err
    return start, finish


@pytest.fixture(scope="module")
def said(shell):
    """The algorithm in the list, its help text, and a setting that it refuses."""
    start, _ = shell
    help_line = next(x for x in blocks("bash")[1].splitlines() if x.endswith("--help"))
    mistake = "fsrl-ext train sac_penalty SafetyBallCircle-v0 --penalty -1"
    return start.run_all([command("fsrl-ext list"), help_line, mistake])


def test_the_algorithm_is_listed_and_shows_its_help(said):
    code, out, err = said[0]
    assert (code, err) == (0, "")
    assert re.search(r"^sac_penalty +SAC with Lagrange multipliers and an exact penalty", out, re.MULTILINE)
    assert out.index("multitask_cpo") < out.index("sac_penalty")
    code, out, err = said[1]
    assert (code, err) == (0, "")
    assert "--penalty" in out
    words = " ".join(out.split())
    assert "Weight that a cost's multiplier gains where the critics expect more than the limit" in words
    assert "Transitions of a gradient step (default: 256)" in words
    assert "those of sac_penalty" in words


def test_a_run_is_interrupted_resumed_and_judged(shell):
    start, finish = shell
    first = start.folder / "runs" / "first"
    training = start(command("fsrl-ext train sac_penalty SafetyBallCircle-v0 --penalty"))
    deadline = time.monotonic() + 300
    while not (first / "checkpoints" / "resume.pt").exists() and training.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(training.pid, signal.SIGINT)
    code, out, err = finish(training)
    assert code == 130, err
    assert "to go on: fsrl-ext resume runs/first" in out
    (code, _, err), judged = start.run_all([command("fsrl-ext resume"), command("fsrl-ext evaluate")])
    assert code == 0, err
    result = json.loads((first / "result.json").read_text())
    assert (result["status"], result["env_step"]) == ("finished", 3000)
    assert result["resumed"][0]["exact"]
    assert result["config"]["policy_config"]["penalty"] == 2.0
    code, out, err = judged
    assert (code, err) == (0, "")
    assert "10 deterministic episodes" in out


def test_the_page_works_from_python_too(shell):
    start, _ = shell
    out = subprocess.run(
        [sys.executable, "use.py"], cwd=start.folder, env=start.env, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[0] == "10.0"
    config = json.loads((start.folder / "runs" / "second" / "config.json").read_text())
    assert (config["policy"], config["policy_config"]["cost_reduction"]) == ("sac_penalty", "ucb")


def test_a_mistake_is_one_line(said):
    code, out, err = said[2]
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "penalty must be >= 0, got -1.0" in err


def test_a_script_registers_the_algorithm_without_a_package(shell):
    start, _ = shell
    others = [block for block in blocks("python") if not re.match(r"# [\w.]+\n", block)]
    assert len(others) == 2
    code = "\n".join(["from sac_penalty import ALGORITHM", *others])
    code += "\nfrom fsrl_ext.experiment import make_config\n"
    code += 'print(make_config("sac_penalty", "SafetyBallCircle-v0").policy_config.penalty)'
    # The package is not installed here: its file lies beside the script.
    env = {**start.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=start.folder, env=env, text=True, capture_output=True, check=True
    )
    assert done.stdout == "1.0\n"
