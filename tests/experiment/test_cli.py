"""The command line as a newcomer meets it, mostly in processes of its own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fsrl_ext.cli import main
from fsrl_ext.experiment.settings import list_settings

COMMAND = [sys.executable, "-m", "fsrl_ext.cli"]
TINY = ["--steps", "600", "--selections", "2", "--selection-episodes", "2", "--final-episodes", "2"]
TINY += ["--num-envs", "2", "--hidden-sizes", "16,16", "--batch-size", "16"]


def cli(*arguments, **kwargs):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, **kwargs)


def test_list_prints_tasks_and_policies(capsys):
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in ("cvpo", "SafetyCarCircle-v0", "SafetyPointCircle1-v0", "SafetyAntVelocity-v1"):
        assert any(line.startswith(name) for line in out.splitlines()), name


def test_a_reader_that_has_seen_enough_is_no_error_and_nothing_else_is_printed():
    out = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {' '.join(COMMAND)} list | head -n 1"],
        capture_output=True,
        text=True,
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert len(out.stdout.splitlines()) == 1


def test_train_ends_with_a_table_and_the_folder(tmp_path, capfd):
    train = ["train", "cvpo", "SafetyBallCircle-v0", "--out", str(tmp_path), *TINY]
    assert main([*train, "--cost-limit", "10"]) == 0
    out, err = capfd.readouterr()
    folder = tmp_path / "SafetyBallCircle-v0-cvpo-seed0-1"
    assert str(folder) in out
    assert str(folder / "curves.png") in out
    assert "last policy" in out
    assert "training episodes above the limit" in out
    # the live bar: return, cost, limit, speed, time left
    assert "limit 10" in err
    assert "step/s" in err
    quiet = cli(*train, "--quiet")
    assert quiet.returncode == 0
    assert quiet.stderr == ""


def test_help_lists_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    out = capsys.readouterr().out
    for name, setting in list_settings().items():
        assert setting.help, name
        if name not in ("policy", "task"):
            assert f"--{name.replace('_', '-')}" in out
    assert "0.97" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["cpo", "SafetyPointGoal1-v0"],
            ["at most (default: 20000, from the task)", "(default: 25, from the task)"],
        ),
        (["cpo", "SafetyCarCircle-v0"], ["at most (default: 6000)", "[0, 1) (default: 0.2, from the task)"]),
        (["cpo"], ["at most (default: 6000; 20000 on safety-gymnasium tasks; "]),
        (["cvpo", "SafetyPointGoal1-v0"], ["in (0, 1) (default: 0.99, from the task)"]),
        (["cvpo"], ["in (0, 1) (default: 0.97; 0.99 on safety-gymnasium tasks; 0.99 on meta tasks; 0.98 on"]),
        (
            ["--gamma", "0.9", "cvpo", "--steps", "500", "SafetyPointGoal1-v0", "--preset", "paper"],
            [
                "those of cvpo with the preset paper on SafetyPointGoal1-v0 (suite safety-gymnasium)",
                "in (0, 1) (default: 0.99, from the preset paper; given here: 0.9)",
                "included (default: 150000; given here: 500)",
                "per cost (default: 25, from the task)",
            ],
        ),
        (["cpo", "Mine-v0"], ["those of cpo on Mine-v0 (a task of yours)"]),
        (["meta_cpo", "MetaAim"], ["at most (default: 3000)", "(default: 3600000)"]),
        ([], ["those of cvpo,"]),
    ],
)
def test_help_says_what_would_run(capsys, arguments, words):
    with pytest.raises(SystemExit, match="0"):
        main(["train", *arguments, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for each in words:
        assert each in text, each


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cvop"], "did you mean cvpo?"),
        (["cvpo", "SafetyCarCircle-v0", "--preset", "papre"], "preset must be one of tuned, paper"),
        (["meta_cpo", "Nobodys"], "unknown family 'Nobodys'"),
    ],
)
def test_help_about_what_there_is_not_is_one_line(capsys, arguments, words):
    assert main(["train", *arguments, "--help"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cvop", "SafetyCarCircle-v0"], "did you mean cvpo?"),
        (["cvpo", "SafetyCarCircel-v0"], "did you mean SafetyCarCircle-v0"),
        (["cvpo", "SafetyBallCircle-v0", "--cost-limit", "-1"], "cost_limit must be >= 0"),
        (["cvpo", "SafetyBallCircle-v0", "--cost-limit", "nan"], "cost_limit must be >= 0"),
        (["cvpo", "SafetyBallCircle-v0", "--cost-limit", "ten"], "cost_limit must be a number"),
        (["cvpo", "SafetyBallCircle-v0", "--gamma", "1"], "gamma must be in (0, 1)"),
        (["cvpo", "SafetyBallCircle-v0", "--gama", "0.9"], "unknown option --gama; did you mean --gamma?"),
        (["cvpo", "SafetyBallCircle-v0", "--shared-body", "maybe"], "must be true or false, got 'maybe'"),
        (["cvpo", "SafetyBallCircle-v0", "--run-name", "taken"], "'taken' exists already"),
        (["sac_lag", "CartPole-v1"], "CartPole-v1 has the action space Discrete(2)"),
        (["cvpo", "Pendulum-v1"], "Pendulum-v1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capfd, arguments, words):
    (tmp_path / "taken").mkdir()
    try:
        code = main(["train", *arguments, "--out", str(tmp_path), "--steps", "100"])
    except SystemExit as end:  # argparse
        code = end.code
    out, err = capfd.readouterr()
    assert code == 2
    assert words in err.splitlines()[-1]
    assert out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    assert list((tmp_path / "taken").iterdir()) == []


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    out = cli("train", "cvpo", "SafetyCarCircel-v0", "--out", str(tmp_path))
    assert (out.returncode, out.stdout) == (2, "")
    assert "did you mean SafetyCarCircle-v0" in out.stderr
    assert "Traceback" not in out.stderr


def test_interrupt_ends_cleanly(tmp_path):
    arguments = ["train", "cvpo", "SafetyBallCircle-v0", "--out", str(tmp_path), *TINY]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--steps", "100000", "--selections", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in a shell's background is told to ignore the interrupt, and so would its children be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    best = tmp_path / "SafetyBallCircle-v0-cvpo-seed0-1" / "checkpoints" / "best.pt"
    patience = 300.0  # a busy machine takes a minute for the imports alone; leaving takes 3 s on a quiet one
    deadline = time.monotonic() + patience
    while not best.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=patience)
    assert process.returncode == 130, err
    assert "interrupted after" in out
    assert "Traceback" not in err
    assert best.exists()
    assert (best.parent.parent / "result.json").exists()
