"""The command line around its commands: own modules, ASCII, numbers after an option, progress."""

import io
import os
import subprocess
import sys

import pytest
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.cli.options import join_numbers
from fsrl_ext.cli.terminal import find_own_modules, prepare_streams
from fsrl_ext.experiment import evaluate, load_policy, resume
from fsrl_ext.experiment.training.build import build_policy
from fsrl_ext.experiment.training.checkpoint import save_checkpoint
from fsrl_ext.trainer.progress import progress

OWN = """
from toys.envs import LineEnv
from fsrl_ext.env import register_task
register_task("OwnLine-v0", entry_point=LineEnv, max_episode_steps=20)
"""
TINY = ["--steps", "200", "--selections", "1", "--selection-episodes", "2", "--final-episodes", "2"]
TINY += [
    "--num-envs",
    "2",
    "--hidden-sizes",
    "4",
    "4",
    "--batch-size",
    "8",
    "--cost-limit",
    "(5,)",
    "--quiet",
]


def test_a_task_of_a_module_in_the_current_folder_is_trained_and_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [x for x in sys.path if x not in ("", str(tmp_path))])
    (tmp_path / "owntasks_of_a_test.py").write_text(OWN)
    assert main(["train", "ddpg_lag", "owntasks_of_a_test:OwnLine-v0", *TINY, "--warmup-steps", "0"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert load_policy(folder).config.gamma == 0.97
    assert len(evaluate(folder, episodes=2).returns) == 2
    with pytest.raises(ValueError, match="has finished"):
        resume(folder)
    assert "feasible now" in capsys.readouterr().out


def test_the_current_folder_is_searched_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["before"])
    find_own_modules()
    find_own_modules()
    assert sys.path == ["before", str(tmp_path)]
    monkeypatch.setattr(sys, "path", ["", "before"])
    find_own_modules()
    assert sys.path == ["", "before"]


def test_a_module_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "failing_of_a_test.py").write_text("raise KeyError('nothing')")
    assert main(["train", "cvpo", "failing_of_a_test:Own-v0"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "fsrl-ext: the module of 'failing_of_a_test:Own-v0' cannot be imported (KeyError: 'nothing') "
        "(see docs/your_own_environment.md)\n"
    )


def test_terminals_of_ascii_get_ascii(monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_streams()
    print("1.0 ± 0.5 \u2603")
    stream.flush()
    assert raw.getvalue() == b"1.0 +/- 0.5 \\u2603\n"


def test_help_and_tables_are_printed_in_ascii():
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C"}
    code = (
        "from fsrl_ext.cli.terminal import prepare_streams; prepare_streams()\n"
        "from fsrl_ext.report.table import error_text, text_table\n"
        "print(text_table(['mean'], [[error_text(1.0, 0.5, 3)]]))"
    )
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "1.0 +/- 0.5" in out.stdout


@pytest.mark.parametrize(
    ("arguments", "joined"),
    [
        (["--hidden-sizes", "256", "256", "cvpo", "T-v0"], ["--hidden-sizes", "256,256", "cvpo", "T-v0"]),
        (["--cost-limit", "5", "20"], ["--cost-limit", "5,20"]),
        (["--cost-limit=5", "20", "x"], ["--cost-limit=5,20", "x"]),
        (["--cost-limit", "(64,", "64)"], ["--cost-limit", "(64,64)"]),
        (["--cost-limit", "5", "inf", "1e3", ".5"], ["--cost-limit", "5,inf,1e3,.5"]),
        (["--cost-limit", "-5"], ["--cost-limit", "-5"]),
        (["--gamma", "0.9", "5"], ["--gamma", "0.9", "5"]),
        (["--hidden-sizes", "cvpo", "64"], ["--hidden-sizes", "cvpo", "64"]),
        (["--cost-limit", "5", "--steps", "3"], ["--cost-limit", "5", "--steps", "3"]),
    ],
)
def test_numbers_after_an_option_are_one_value(arguments, joined):
    assert join_numbers(arguments, {"--cost-limit", "--hidden-sizes"}) == joined


def test_a_run_whose_name_is_a_number_is_no_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "20").mkdir()
    assert join_numbers(["--cost-limit", "5", "20"], {"--cost-limit"}) == ["--cost-limit", "5", "20"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "show", "shown"), [
    (Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False),
])  # fmt: skip
def test_progress_is_shown_on_terminals_alone(monkeypatch, stream, show, shown):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr("fsrl_ext.trainer.progress.DELAY", 0.0)
    groups = [[1, 2], [3]]
    assert list(progress(groups, "evaluation", total=3, show=show)) == groups
    assert ("evaluation" in sys.stderr.getvalue()) == shown
    assert ("/3 " in sys.stderr.getvalue()) == shown


def test_an_evaluation_shows_its_progress_unless_it_is_quiet(tmp_path, monkeypatch, capsys):
    config = small_config("cvpo")
    policy, spec = build_policy(config)
    counters = {"env_step": 0, "gradient_step": 0, "episode": 0}
    save_checkpoint(tmp_path / "a.pt", policy, config=config, spec=spec, counters=counters)
    monkeypatch.setattr("fsrl_ext.trainer.progress.DELAY", 0.0)
    for quiet in ([], ["--quiet"]):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["evaluate", str(tmp_path / "a.pt"), "--episodes", "4", *quiet]) == 0
        assert ("evaluation: " in terminal.getvalue()) == (not quiet)
    assert "overall" in capsys.readouterr().out


def test_a_device_that_holds_no_numbers_is_refused():
    with pytest.raises(ValueError, match="device 'meta' cannot be used: a meta device holds no numbers"):
        build_policy(small_config("cvpo", device="meta"))


def test_a_graphics_backend_that_is_not_there_is_one_line():
    code = "import sys; from fsrl_ext.cli import main; sys.exit(main(['list', 'tasks']))"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": "abacus"},
        capture_output=True,
        text=True,
    )
    assert (out.returncode, out.stdout) == (2, "")
    assert len(out.stderr.splitlines()) == 1
    assert "MUJOCO_GL='abacus' (RuntimeError: invalid value for environment variable" in out.stderr
