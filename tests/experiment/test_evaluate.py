"""Saved policies played again: the run's numbers, films, windows, and new runs that start from them."""

import importlib.util
import json
import math
import sys

import numpy as np
import pytest
import torch
from toys.envs import DrawnLineEnv
from toys.policies import tensors
from toys.settings import small_config

from fsrl_ext import cli
from fsrl_ext.env import register_task
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment import evaluate, record_video, run, show
from fsrl_ext.experiment.saved.evaluate import evaluation_report, evaluation_table
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, write_checked
from fsrl_ext.report.statistics import mean_interval, share_interval
from fsrl_ext.trainer import Evaluation


def small(task="DrawnLine-v0", **settings):
    """Return the config of a run of CVPO with 160 gradient steps."""
    own = {"update_per_step": 0.2, "final_episodes": 6, "cost_limit": 5.0}
    return small_config("cvpo", task, **{**own, **settings})


@pytest.fixture(autouse=True, scope="module")
def _drawn_task():
    register_task("DrawnLine-v0", entry_point=DrawnLineEnv, max_episode_steps=20)


@pytest.fixture(scope="module")
def done(_drawn_task, tmp_path_factory):
    return run(small(), out=tmp_path_factory.mktemp("runs"), show_progress=False)


@pytest.fixture(scope="module")
def two_costs(tmp_path_factory):
    config = small("ToyLineTwoCosts-v0", cost_limit=(5.0, 2.0), steps=160, selections=1)
    return run(config, out=tmp_path_factory.mktemp("runs"), show_progress=False)


def command(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def frames_of(path):
    import imageio.v2

    with imageio.v2.get_reader(path) as reader:
        return [np.asarray(frame)[..., :3] for frame in reader], reader.get_meta_data()


# --- numbers ---


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_numbers_of_the_finished_run_come_back_exactly(done, which):
    others = ("selected_as_feasible", "returns", "costs", "other_costs")
    expected = {name: value for name, value in done.result[which].items() if name not in others}
    assert evaluate(done.folder, episodes=6, checkpoint=which).summary() == expected
    file = done.folder / "checkpoints" / f"{which}.pt"
    assert evaluate(file, episodes=6).summary() == expected


def test_any_number_of_episodes_and_any_seed(done):
    seven = evaluate(done.folder, episodes=7, seed=100)
    assert seven.returns.shape == (7,)
    assert seven.costs.shape == (7, 1)
    for i in (0, 3, 6):  # the episode belongs to its seed
        one = evaluate(done.folder, episodes=1, seed=100 + i)
        np.testing.assert_allclose(one.returns, seven.returns[i : i + 1], rtol=1e-5)
    assert len(np.unique(seven.returns)) == 7
    assert not np.isin(seven.returns, evaluate(done.folder, episodes=7).returns).any()


def test_episodes_that_end_early_stay_with_their_seeds(done, tmp_path, capsys):
    task, episodes, file = "ToySeedLength-v0", 8, tmp_path / "numbers.json"
    arguments = ("--task", task, "--episodes", episodes, "--seed", 40, "--json", file)
    assert command(capsys, "evaluate", done.folder, *arguments)[0] == 0
    numbers = json.loads(file.read_text())
    assert numbers["seeds"] == [*range(40, 48)]
    alone = [evaluate(done.folder, task=task, episodes=1, seed=s) for s in numbers["seeds"]]
    np.testing.assert_allclose(numbers["returns"], [x.returns[0] for x in alone], rtol=1e-5)
    np.testing.assert_allclose(numbers["costs"], [x.costs[0] for x in alone], rtol=1e-5)


def test_stochastic_actions_are_sampled_and_repeatable(done):
    first, again = (evaluate(done.folder, episodes=5, stochastic=True) for _ in range(2))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert not np.isclose(first.returns, evaluate(done.folder, episodes=5).returns).any()


def test_playing_changes_no_state_of_torch(done):
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    evaluate(done.folder, episodes=2, stochastic=True)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_another_limit_changes_the_verdict_alone(done):
    strict, loose = (evaluate(done.folder, episodes=4, cost_limit=limit) for limit in (0.0, math.inf))
    np.testing.assert_array_equal(strict.costs, loose.costs)
    assert (strict.feasible, strict.share_above_limit) == (False, 1.0)
    assert (loose.feasible, loose.share_above_limit) == (True, 0.0)


def test_report_has_intervals_and_one_verdict_per_cost():
    costs = np.array([[1.0, 4.0], [2.0, 6.0], [3.0, 8.0], [2.0, 6.0]])
    evaluation = Evaluation(env_step=7, returns=np.arange(4.0), costs=costs, cost_limit=(5.0, 5.0))
    report = evaluation_report(evaluation)
    assert report["return_interval"] == mean_interval([0.0, 1.0, 2.0, 3.0])
    assert report["cost_interval"][1] == mean_interval([4.0, 6.0, 8.0, 6.0])
    assert report["share_above_limit_interval"] == share_interval(3, 4)
    assert report["share_above_limit_per_cost_interval"] == [share_interval(0, 4), share_interval(3, 4)]
    assert report["intervals"]["of_means"] == "Student t"
    assert report["intervals"]["independent"] == "episodes"
    assert report["feasible_per_cost"] == [True, False]
    assert report["share_above_limit_per_cost"] == [0.0, 0.75]
    assert (report["feasible"], report["share_above_limit"]) == (False, 0.75)
    assert report["costs"] == costs.tolist()
    cells = {line.split("  ")[0]: line.split() for line in evaluation_table(evaluation).splitlines()[2:]}
    low, high = report["cost_interval"][0]
    assert cells["cost 0"] == [
        "cost",
        "0",
        "2.00",
        f"[{low:.2f},",
        f"{high:.2f}]",
        "5",
        "0%",
        "[0%,",
        "60%]",
        "yes",
    ]
    assert cells["cost 1"][-5:] == ["5", "75%", "[19%,", "99%]", "no"]
    assert cells["overall"] == ["overall", "75%", "[19%,", "99%]", "no"]
    assert cells["return"][:2] == ["return", "1.50"]


# --- the command ---


def test_command_prints_the_table_and_writes_the_numbers(done, tmp_path, capsys):
    file = tmp_path / "numbers.json"
    code, out, err = command(capsys, "evaluate", done.folder, "--episodes", "6", "--json", file)
    assert (code, err) == (0, "")
    best = done.result["best"]
    head = f"trained for {best['env_step']:,} steps: 6 deterministic episodes, seeds 2000000 to 2000005"
    assert head in out
    assert [line.split()[0] for line in out.splitlines()[3:6]] == ["return", "cost", "discounted"]
    assert out.splitlines()[3].split()[1] == f"{best['return_mean']:.2f}"
    numbers = json.loads(file.read_text())
    assert numbers["return_mean"] == best["return_mean"]
    assert numbers["cost_mean"] == best["cost_mean"]
    assert len(numbers["returns"]) == 6
    assert (numbers["seeds"], numbers["stochastic"]) == ([*range(2_000_000, 2_000_006)], False)
    assert numbers["command"].startswith("fsrl-ext evaluate ")


def test_command_judges_several_costs_by_other_limits(two_costs, capsys):
    arguments = ("--episodes", "3", "--seed", "5", "--checkpoint", "last", "--stochastic")
    code, out, _ = command(capsys, "evaluate", two_costs.folder, *arguments, "--cost-limit", "inf,0")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["inf", "-", "-"] in [row[-3:] for row in rows if row[:2] == ["cost", "0"]]
    share = ["100%", "[29%,", "100%]", "no"]
    assert ["0", *share] in [row[-5:] for row in rows if row[:2] == ["cost", "1"]]
    assert ["overall", *share] in rows
    assert "warning: fewer than 5 episodes (3)." in out
    assert "last.pt" in out
    assert "3 stochastic episodes, seeds 5 to 7" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--episodes", "0"], "episodes must be a whole number >= 1, got 0"),
        (["--seed", "-1"], "seed must be a whole number in [0, 2**32), got -1"),
        (["--cost-limit", "nan"], "cost_limit must be >= 0 (one number or one per cost), got nan"),
        (["--cost-limit", ""], "cost_limit must be a number"),
        (["--cost-limit", "1,2"], "DrawnLine-v0 has 1, got 2"),
        (["--device", "warp"], "device 'warp' cannot be used"),
        (["--video", "film.avi"], "film.avi must end in .mp4 or .gif"),
        (["--video", "no/such/film.gif"], "there is no folder no/such"),
        (["--video", "film.gif", "--video-episodes", "0"], "video_episodes must be a whole number >= 1"),
        (["--video", "taken.gif"], "taken.gif exists already; nothing was overwritten"),
        (["--json", "taken.gif"], "taken.gif exists already; nothing was overwritten"),
        (["--render", "human"], "DISPLAY is not set"),
        (["--task-seed", "1"], "task_seed needs a task that it draws, got 1 alone"),
        (["--task", "DrawnLine-v0", "--task-seed", "1"], "task_seed must be None for DrawnLine-v0"),
        (
            ["--task", "SafetyBallCircle-v0"],
            "SafetyBallCircle-v0 has [8] and [2], DrawnLine-v0 has [2] and [1]",
        ),
        (["--task", "Drawn-v0"], "Drawn-v0"),
        (["--task", "DrawnLine-v0", "--suite", "inside"], "--task is one task; it does not go with --suite"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(done, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    (tmp_path / "taken.gif").write_text("mine")
    code, out, err = command(capsys, "evaluate", done.folder, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["taken.gif"]
    assert (tmp_path / "taken.gif").read_text() == "mine"


@pytest.mark.parametrize("content", [None, b"", b"PK not a checkpoint", "empty folder"])
def test_missing_and_damaged_runs_are_one_line_and_exit_code_2(tmp_path, capsys, content):
    path = tmp_path / "run"
    if content == "empty folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    code, out, err = command(capsys, "evaluate", path)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "checkpoint" in err
    assert str(path) in err


def test_unknown_checkpoint_is_refused(done):
    with pytest.raises(ValueError, match="checkpoint must be 'best' or 'last', got 'first'"):
        evaluate(done.folder, checkpoint="first")


# --- films and windows ---


def test_film_shows_the_first_episodes(done, tmp_path, capsys):
    film = tmp_path / "film.gif"
    arguments = ("--episodes", "6", "--video", film, "--video-episodes", "2")
    code, out, err = command(capsys, "evaluate", done.folder, *arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"video: {film}"
    frames, meta = frames_of(film)
    # 20 steps and the state before the first; the last row of an odd height is cut off
    assert [f.shape for f in frames] == [(32, 48, 3)] * 42
    np.testing.assert_allclose([f.mean() for f in frames], [*range(0, 201, 10)] * 2, atol=1)
    assert meta["duration"] == 100
    returns = evaluate(done.folder, episodes=2).returns
    for i in range(2):
        assert f"played seed {2_000_000 + i}: return {returns[i]:.2f}, cost" in out
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed"
)
def test_film_as_mp4(done, tmp_path):
    film = tmp_path / "film.mp4"
    (played,) = record_video(done.folder, film, seed=11)
    assert (played["seed"], played["frames"]) == (11, 21)
    assert played["return"] == pytest.approx(evaluate(done.folder, episodes=1, seed=11).returns[0], rel=1e-5)
    assert played["cost"] == [pytest.approx((20 + played["return"]) / 2, rel=1e-5)]
    frames, meta = frames_of(film)
    assert [f.shape for f in frames] == [(32, 48, 3)] * 21
    np.testing.assert_allclose([f.mean() for f in frames], range(0, 201, 10), atol=4)
    assert meta["fps"] == 10
    with pytest.raises(ValueError, match="exists already"):
        record_video(done.folder, film)


def test_another_task_is_played_and_filmed(done, tmp_path, capsys):
    register_task("DrawnShortLine-v0", entry_point=DrawnLineEnv, max_episode_steps=10)
    film, numbers = tmp_path / "film.gif", tmp_path / "numbers.json"
    arguments = ("--task", "DrawnShortLine-v0", "--episodes", "2", "--video", film, "--json", numbers)
    code, out, err = command(capsys, "evaluate", done.folder, *arguments)
    assert (code, err) == (0, "")
    assert ", on DrawnShortLine-v0: 2 deterministic episodes" in out
    assert len(frames_of(film)[0]) == 11
    found = evaluate(done.folder, task="DrawnShortLine-v0", episodes=2)
    assert f"played seed 2000000: return {found.returns[0]:.2f}, cost" in out
    data = json.loads(numbers.read_text())
    assert (data["task"], data["returns"]) == ("DrawnShortLine-v0", found.returns.tolist())
    assert not np.isclose(found.returns, evaluate(done.folder, episodes=2).returns).any()


def test_missing_packages_are_named_with_the_command(done, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    code, out, err = command(capsys, "evaluate", done.folder, "--video", tmp_path / "film.mp4")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "pip install imageio imageio-ffmpeg" in err
    record_video(done.folder, tmp_path / "film.gif")  # a GIF needs no ffmpeg
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]


def test_failure_while_filming_leaves_no_file(done, tmp_path, monkeypatch):
    def broken(self):
        if self.time == 5:
            raise KeyboardInterrupt
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(DrawnLineEnv, "render", broken)
    with pytest.raises(KeyboardInterrupt):
        record_video(done.folder, tmp_path / "film.gif")
    assert list(tmp_path.iterdir()) == []


def test_tasks_without_pictures_are_named(two_costs, tmp_path):
    with pytest.raises(ValueError, match="ToyLineTwoCosts-v0 cannot be drawn: it has no render_mode"):
        record_video(two_costs.folder, tmp_path / "film.gif")
    assert list(tmp_path.iterdir()) == []


def test_window_plays_in_the_time_of_the_environment(done, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":9")
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(DrawnLineEnv, "shown", 0)
    (played,) = show(done.folder, seed=11)
    assert DrawnLineEnv.shown == 20
    assert played["return"] == pytest.approx(evaluate(done.folder, episodes=1, seed=11).returns[0], rel=1e-5)
    assert len(pauses) == 21
    # as nobody really slept, the last step is due 21 tenths of a second after the start
    assert 1.5 < pauses[-1] <= 2.1


@pytest.mark.parametrize("task", ["SafetyBallCircle-v0", "SafetyPointCircle1-v0", "SafetyPointStcircle1-v0"])
def test_real_tasks_are_drawn_whole(task):
    from fsrl_ext.experiment.saved.chosen_task import ChosenTask
    from fsrl_ext.experiment.saved.film import _frame, _make_drawing

    try:
        env = _make_drawing(ChosenTask(task), "rgb_array", {})
    except ValueError as error:
        pytest.skip(f"nothing to draw with: {error}")
    try:
        env.reset(seed=0)
        frame = _frame(env, task)
    finally:
        env.close()
    assert min(frame.shape[:2]) >= 360
    # the agent: the only strongly red thing of both tasks, and all of it inside the picture
    red = (frame[..., 0] > 130) & (frame[..., 1:].max(-1) < 70)
    rows, columns = np.nonzero(red)
    assert 50 < len(rows) < 0.1 * red.size
    assert 0 < rows.min() < rows.max() < red.shape[0] - 1
    assert 0 < columns.min() < columns.max() < red.shape[1] - 1


# --- new runs that start from a saved policy ---


def test_new_run_starts_from_the_saved_policy(done, tmp_path, monkeypatch):
    from fsrl_ext.policy import CVPOPolicy

    process, start = CVPOPolicy.process_fn, {}

    def watched(self, *args, **kwargs):
        if not start:
            start["policy"] = tensors(self)
            start["units"], start["cycle"] = self.data.units(), self.data.progress()["cycle"]
            start["group"] = dict(self.actor_optim.state_dict()["param_groups"][0])
            state = self.actor_optim.state_dict()["state"][0]
            start["moments"] = {k: v.clone() for k, v in state.items()}
        return process(self, *args, **kwargs)

    monkeypatch.setattr(CVPOPolicy, "process_fn", watched)
    config = small(seed=7, steps=160, selections=1, actor_lr=1e-4, cost_limit=3.0, warmup_steps=100)
    new = run(config, out=tmp_path, show_progress=False, init_from=done.folder)
    best = done.folder / "checkpoints" / "best.pt"
    saved = read_checkpoint(best)
    for name, value in start["policy"].items():
        assert torch.equal(value, saved["policy"][name]), name
    # The units in which the networks see the data stay with them, and the counts of the old run do not.
    assert start["units"] == saved["policy"]["_extra_state"]["units"]
    assert start["units"]["scale"] != [1.0, 1.0]
    assert start["cycle"] is None
    moments = saved["optimisers"]["actor_optim"]["state"][0]
    assert moments["step"] > 0
    for name, value in moments.items():
        assert torch.equal(start["moments"][name], value), name
    assert start["group"]["lr"] == 1e-4
    assert (new.result["env_step"], new.result["gradient_step"]) == (160, 32)
    after = read_checkpoint(new.folder / "checkpoints" / "last.pt")
    assert after["counters"]["env_step"] == 160
    assert after["optimisers"]["actor_optim"]["state"][0]["step"] == moments["step"] + 32
    note = new.result["init_from"]
    assert note == json.loads((new.folder / "config.json").read_text())["init_from"]
    assert note["checkpoint"] == str(best)
    assert note["env_step"] == done.result["best"]["env_step"]
    assert note["optimisers"] == ["actor_optim", "critic_optim"]
    assert "init_from=" in new.result["command"]


def test_runs_from_scratch_note_no_origin(done):
    assert "init_from" not in done.result
    assert "init_from" not in json.loads((done.folder / "config.json").read_text())


def test_optimiser_of_another_kind_starts_fresh(done, tmp_path, monkeypatch):
    from fsrl_ext.experiment.algorithms import offpolicy

    monkeypatch.setattr(offpolicy, "adam", lambda m, lr: torch.optim.SGD(m.parameters(), lr))
    config = small(steps=80, selections=1)
    new = run(config, out=tmp_path, show_progress=False, init_from=done.folder)
    assert new.result["init_from"]["optimisers"] == []


def test_command_starts_from_a_file(done, tmp_path, capsys):
    last = done.folder / "checkpoints" / "last.pt"
    settings = ["--steps", "80", "--selections", "1", "--num-envs", "4", "--hidden-sizes", "16"]
    settings += ["--selection-episodes", "2", "--final-episodes", "2", "--batch-size", "16", "--quiet"]
    arguments = ["train", "cvpo", "DrawnLine-v0", *settings, "--out", tmp_path, "--init-from", last]
    code, _, err = command(capsys, *arguments)
    assert code == 0, err
    result = json.loads((tmp_path / "DrawnLine-v0-cvpo-seed0-1" / "result.json").read_text())
    assert result["init_from"]["checkpoint"] == str(last)
    assert f"--init-from {last}" in result["command"]


@pytest.mark.parametrize(
    ("origin", "sizes", "words"),
    [
        ("done", (8,), r"has the shape \[16, 2\] there, \[8, 2\] here"),
        ("done", (16, 16), r"does not fit: .*hidden_sizes \(16,\)"),
        ("two_costs", (16,), "trained on ToyLineTwoCosts-v0"),
        ("another", (16,), "holds the policy 'other', not 'cvpo'"),
        ("damaged", (16,), "damaged or not a checkpoint"),
        ("missing", (16,), "no checkpoint at"),
    ],
)
def test_policies_that_do_not_fit_leave_nothing_behind(request, tmp_path, capsys, origin, sizes, words):
    path = tmp_path / f"{origin}.pt"
    if origin in ("done", "two_costs"):
        path = request.getfixturevalue(origin).folder
    elif origin == "damaged":
        path.write_bytes(b"nothing")
    elif origin == "another":
        data = read_checkpoint(request.getfixturevalue("done").folder / "checkpoints" / "best.pt")
        write_checked(path, data | {"config": data["config"] | {"policy": "other"}}, kind="checkpoint")
    with pytest.raises(CheckpointError, match=words) as error:
        run(small(hidden_sizes=sizes), out=tmp_path / "runs", show_progress=False, init_from=path)
    assert len(str(error.value).splitlines()) == 1
    arguments = ["--hidden-sizes", ",".join(map(str, sizes)), "--init-from", path, "--out", tmp_path / "runs"]
    code, out, err = command(capsys, "train", "cvpo", "DrawnLine-v0", *arguments)
    page = "runs" if origin == "missing" else "trust"
    assert (code, out, err) == (2, "", f"fsrl-ext: {error.value} (see docs/{page}.md)\n")
    assert not (tmp_path / "runs").exists()
