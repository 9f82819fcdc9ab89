"""Every example runs on its own environment, with few steps and with the fewest, in one process."""

import functools
import gc
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from toys.page_code import short_trainings

from fsrl_ext import env
from fsrl_ext.experiment import registry

pytest.importorskip("mujoco")
pytest.importorskip("pybullet")

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
NUMBER = r"-?\d+\.\d"
TABLE = r"last policy +\d+ .*\n"

# What a script is called with beside the number of steps, and what it must print; \n(.*\n)* is any lines.
SCRIPTS = {
    "mlp/ball_circle.py": ("", rf"{TABLE}(.*\n)*one episode: return {NUMBER}, cost {NUMBER}\n"),
    "mlp/car_circle.py": ("--save best.pt", r"'episodes': 10, 'return_mean': .*'feasible': "),
    "mlp/car_run.py": ("", rf"last policy: return {NUMBER}, cost {NUMBER}, limit 10\n"),
    "mlp/ball_run.py": ("--limits 5 10", r"sac_lag +5 .*\n.*sac_lag +10 .*\n(.*\n)*.*ball_run_limits.png: "),
    "mlp/ball_circle_baselines.py": (
        "--episodes 1 --policy ddpg",
        rf"{TABLE}(.*\n)*without a limit: return {NUMBER}, cost {NUMBER}\n",
    ),
    "mlp/drone_circle.py": ("--seeds 2", r"cvpo .*\n(.*\n)*.*drone_circle_seeds.png: "),
    "mlp/drone_run.py": (
        "--episodes 1",
        rf"best policy, seed 0: return {NUMBER}, cost \d+, \d+ frames\nfilm: .*best.gif\nlast policy, ",
    ),
    "mlp/ant_circle.py": ("", rf"cost_ensemble = 2 instead of 1, .* from the policy\n(.*\n)*{TABLE}"),
    "mlp/ant_run.py": ("--cores 1", r"1 cores: .* steps/s\n1 cores: .*\nthe last policy's .* same: True\n"),
    "mlp/point_goal1.py": (
        "--episodes 2 --states 0",
        rf"{TABLE}(.*\n)*Findings\n(.*\n)*\d+ findings, about",
    ),
    "mlp/car_goal1.py": ("", r"PID control +.*\ndual ascent .* \d\.\d\d +\d\.\d\d\n"),
    "mlp/point_button1.py": (
        "",
        rf"{TABLE}(.*\n)*hazards: cost {NUMBER}, limit 15, .*\ngremlins: .* 10, .*\nbuttons: .* 5, ",
    ),
    "mlp/point_push1.py": (
        "",
        rf"limit 50, best policy: return {NUMBER}, .*\nlimit 50, last .*\nlimit 25, best .*\nlimit 25, last ",
    ),
    "mlp/car_push1.py": (
        "--action-repeat 3",
        rf"{TABLE}(.*\n)*one episode: 17 decisions of 3 steps, cost {NUMBER}\n",
    ),
    "mlp/car_button1.py": (
        "--max-episodes 10",
        rf"mean cost after 10 episodes: \w+, between {NUMBER} and {NUMBER}; limit 25\nshare .* at most 30%\n",
    ),
    "mlp/point_circle1.py": ("", r"\d+ steps: return .*\nfinished after \d+ steps: "),
    "mlp/car_circle1.py": ("", r"policy.torchscript: within .*\none episode with the file: return "),
    "mlp/car_button_fixed.py": ("", rf"num_samples = 32, by default 16\n(.*\n)*{TABLE}"),
    "mlp/half_cheetah_velocity.py": (
        "",
        r"train/costs_stat/0/mean +.*\n(.*\n)*update/estep/kl_relative +.*\n(.*\n)*training episodes above",
    ),
    "mlp/hopper_velocity.py": (
        "--episodes 2",
        rf"\d+ of 50 steps per episode, \d of 2 ended with a fall\ncost of an episode {NUMBER}, ",
    ),
    "mlp/ant_velocity.py": ("", rf"limit at step +0:  200.0\n(.*\n)*{TABLE}"),
    "mlp/swimmer_velocity.py": (
        "--episodes 2",
        rf"discounted cost {NUMBER}\d, (within|above) the limit 5\nsum of the costs .* {NUMBER}, return ",
    ),
    "mlp/humanoid_velocity.py": (
        "--episodes 2",
        rf"newest training .* -\n *last policy, sampled .* {NUMBER} .*%\n *last policy, mean actions .*%\n",
    ),
    "mlp/walker2d_velocity.py": (
        "",
        r"\| cpo \|.*\n(.*\n)*.*\| ppo \|.*\n(.*\n)*.*walker2d.png: .*\n.*walker2d.html",
    ),
    "mlp/cpo_convex_sets.py": ("", rf"{TABLE}(.*\n)*curves: .*gentle_cpo"),
    "meta/point_stcircle.py": (
        "--adapt-steps 1",
        r"SafetyPointStcircle2-v0: radius 2\.(.*\n)*1 +200 .*\ntrajectories: trajectories.png\n",
    ),
    "meta/car_stcircle.py": ("--adapt-steps 1 --limits 25 10", r"limit +return before.*\n.*\n +25 .*\n +10 "),
    "meta/point_stbutton.py": (
        "--adapt-steps 1 --tasks 1",
        rf"outside of the .*\nbefore adaptation: return {NUMBER}, limit kept on \d of 1 tasks\nafter ",
    ),
    "meta/car_stbutton.py": (
        "--adapt-steps 1 --tasks 1",
        r"meta_cpo: 1 tasks outside(.*\n)*.*after 1 step .*\n(.*\n)*multitask_cpo(.*\n)*after 1 step ",
    ),
    "multi_agent/ant_velocity.py": (
        "--agents independent --episodes 1",
        rf"agent_0: sees \(21,\), moves \(4,\)\n(.*\n)*team: return {NUMBER}, cost {NUMBER}, actors 2\n",
    ),
}
# The tasks of the papers and of the benchmarks, each of which has a script.
TASKS = {
    *(f"Safety{robot}{kind}-v0" for robot in ("Ball", "Car", "Drone", "Ant") for kind in ("Circle", "Run")),
    *(f"SafetyPoint{kind}1-v0" for kind in ("Goal", "Button", "Push", "Circle")),
    *(f"SafetyCar{kind}1-v0" for kind in ("Goal", "Button", "Push", "Circle")),
    "SafetyCarButtonFixed-v0",
    *(f"Safety{x}Velocity-v1" for x in ("HalfCheetah", "Hopper", "Ant", "Walker2d", "Swimmer", "Humanoid")),
    *(f"Safety{robot}{kind}" for robot in ("Point", "Car") for kind in ("Stcircle", "Stbutton")),
}
ROW = re.compile(
    r"^\| \[`(?P<name>.+?)`\]\((?P<link>.+?)\) \| (?:`(?P<task>Safety\S+)` \| )?(?P<lesson>.+) \|$",
    re.MULTILINE,
)


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Return a function that runs a script in an empty folder, with episodes of 50 steps."""
    monkeypatch.chdir(tmp_path)
    short = functools.partial(env.make, max_episode_steps=50)
    for module in (env, env.registry):
        monkeypatch.setattr(module, "make", short)
    # What a script registers is gone after its test.
    monkeypatch.setattr(registry, "_algorithms", dict(registry._algorithms))

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield call
    # Policies, buffers and simulators of a run refer to each other, and would pile up to gigabytes.
    gc.collect()


# With the fewest steps run one script of each kind, and those whose 400 steps take long: films, and twenty
# simulators of a run by hand.
FEWEST = {
    *("mlp/ball_circle.py", "mlp/ball_circle_baselines.py", "mlp/car_circle.py", "mlp/drone_run.py"),
    *("mlp/walker2d_velocity.py", "meta/car_stbutton.py", "multi_agent/ant_velocity.py"),
}
LONG = {"mlp/drone_run.py", "mlp/car_circle.py"}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        *((name, 1) for name in SCRIPTS if name in FEWEST),
        *((name, 400) for name in SCRIPTS if name not in LONG),
    ],
)
def test_the_script_runs(call, name, steps):
    arguments, words = SCRIPTS[name]
    with short_trainings(steps=None, warmup_steps=None):
        out = call(name, "--steps", str(steps), "--seed", "1", *arguments.split())
    assert re.search(words, out), out


def test_a_script_runs_as_it_stands_from_any_folder(tmp_path):
    command = [sys.executable, str(EXAMPLES / "mlp" / "ball_circle.py"), "--steps", "1"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert re.search(SCRIPTS["mlp/ball_circle.py"][1], out.stdout), out.stdout
    assert (tmp_path / "runs" / "SafetyBallCircle-v0-cvpo-seed0-1" / "result.json").is_file()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_help_says_what_is_taught_and_how_to_begin(call, name, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(name, "--help")
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--steps", "--seed", f"python examples/{name} --"):
        assert words in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_enough_to_read(name):
    assert len((EXAMPLES / name).read_text().splitlines()) <= 60


ROWS = {
    row["name"]: row for row in ROW.finditer((EXAMPLES / "README.md").read_text())
}  # of the table that is a page of the documentation, too


class TestTable:
    def test_every_file_has_a_row(self):
        files = {x.relative_to(EXAMPLES).as_posix() for x in EXAMPLES.rglob("*") if x.is_file()}
        shown = {x for x in files if Path(x).suffix in (".py", ".toml")}
        assert set(ROWS) == shown
        assert set(SCRIPTS) == shown - {"tuning.py", "study.toml"}

    def test_every_row_is_about_its_file(self):
        for name, row in ROWS.items():
            assert row["link"] == name
            if row["task"]:
                assert f'"{row["task"]}"' in (EXAMPLES / name).read_text(), name

    def test_no_two_scripts_teach_the_same(self):
        lessons = [row["lesson"] for row in ROWS.values()]
        assert len(set(lessons)) == len(lessons)

    def test_every_task_of_the_papers_and_benchmarks_has_a_script(self):
        tasks = {row["task"] for row in ROWS.values()}
        assert tasks >= TASKS
