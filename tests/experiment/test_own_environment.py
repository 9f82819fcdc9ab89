"""docs/your_own_environment.md, followed to the letter: its files are written, and its commands run."""

import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from toys.runs import assert_same_run, run_killed

from fsrl_ext.cli import main
from fsrl_ext.env import check_env, make
from fsrl_ext.experiment import make_config, run
from fsrl_ext.experiment.training import snapshot

PAGE = (Path(__file__).parents[2] / "docs" / "your_own_environment.md").read_text()
SMALL = {"steps": 400, "step_per_collect": 100, "num_envs": 2, "selections": 2}
SMALL |= {"selection_episodes": 2, "final_episodes": 2}
LESS = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in SMALL.items())


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


FILES = {match[1]: block for block in blocks("python") if (match := re.match(r"# (\w+\.py)\n", block))}


def command(start):
    """Return the arguments of the page's only command that begins like this."""
    (line,) = [x for block in blocks("bash") for x in block.splitlines() if x.startswith(f"fsrl-ext {start}")]
    return shlex.split(line)[1:]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Write the page's files, and work in their folder as a user does."""
    path = tmp_path_factory.mktemp("own")
    for name, block in FILES.items():
        (path / name).write_text(block)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.syspath_prepend(path)
        yield path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_environment_has_fewer_than_forty_lines():
    assert set(FILES) == {"tasks.py", "wrapped.py", "pictures.py", "positions.py"}
    assert len([line for line in FILES["tasks.py"].splitlines() if line.strip()]) < 40


def test_the_commands_check_train_and_evaluate(folder, capsys):
    assert main([*command("check tasks"), "--no-workers"]) == 0  # processes: below
    train = command("train")
    train[train.index("--steps") + 1] = "400"
    assert main([*train, *shlex.split(LESS), "--quiet"]) == 0
    assert main([*command("evaluate")[:-2], "--episodes", "2", "--quiet"]) == 0
    assert main([*command("check wrapped"), "--no-workers"]) == 0
    assert "wrapped:SlowPendulum-v0: 12 ok, 0 failed, 0 skipped" in capsys.readouterr().out


def test_the_python_of_the_page_runs(capsys):
    names = {"__name__": "page"}
    for block in blocks("python"):
        if not block.startswith("# "):
            small = block.replace("steps=2_000, step_per_collect=500", f"**{SMALL}").replace(
                "num_envs = 2", "num_envs = 1"
            )
            exec(compile(small, "page", "exec"), names)
    out = capsys.readouterr().out
    assert "max_episode_steps=" in out
    for method in ("fork", "spawn"):
        assert f"{method} [0.0]" in out


def test_a_run_of_the_page_is_resumed_by_its_command(folder, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", np.inf)
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    config = make_config("ppo_lag", "tasks:Cart-v0", cost_limit=10, **SMALL)
    whole = run(config, out=folder, run_name="whole", show_progress=False)
    cut = run_killed(config, 200, folder)
    arguments = command("resume")
    arguments[1] = os.fspath(cut)
    assert main([*arguments, "--quiet"]) == 0
    assert_same_run(whole.folder, cut)


def test_wrappers_are_part_of_the_task_and_statistics_in_them_fail():
    env = make("wrapped:SlowPendulum-v0")
    env.reset(seed=0)
    rewards = [env.step(np.ones(1, np.float32))[1] for _ in range(5)]
    assert -1.2 < min(rewards) <= max(rewards) <= 0
    env.close()

    env = importlib.import_module("tasks").Cart()
    env = gymnasium.wrappers.TimeLimit(env, 20)
    for wrapped, status in ((env, "ok"), (gymnasium.wrappers.NormalizeObservation(env), "fails")):
        assert {x.check: x.status for x in check_env(wrapped)}["seeds"] == status


def test_the_table_of_the_page_has_every_check():
    rows = re.findall(r"^\| ([\w ]+|worker.*?) \| [A-Z`]", PAGE, re.MULTILINE)
    checks = [x.check for x in check_env("tasks:Cart-v0", workers=False)]
    assert rows == [*checks, "worker (spawn), worker (fork)"]
