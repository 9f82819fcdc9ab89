"""Runs whose costs have names: settings, logs, tables, figures, evaluation, resuming and sweeps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.env import make
from fsrl_ext.experiment import ExperimentConfig, certify, evaluate, make_config, resume, run
from fsrl_ext.experiment.saved.certify import certificate_table
from fsrl_ext.experiment.saved.evaluate import evaluation_report, evaluation_table
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.experiment.training.folder import RunFolder
from fsrl_ext.report import read_progress
from fsrl_ext.report.study.tables import study_table

COSTS, LIMITS = ("right", "left"), (10.0, 12.0)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A small run with two named costs, of which the second one is a sum."""
    config = small_config("cvpo", "ToyNamed-v0", costs=("right", "l"), cost_limit=LIMITS)
    return run(config, out=tmp_path_factory.mktemp("named"), run_name="run", show_progress=False)


def test_the_names_are_in_the_config_and_in_the_saved_policy(named):
    files = RunFolder(named.folder)
    for config in (
        json.loads(files.config.read_text()),
        named.result["config"],
        read_checkpoint(files.best)["config"],
    ):
        assert config["costs"] == ["right", "l"]
    assert ExperimentConfig.from_dict(named.result["config"]).costs == ("right", "l")


@pytest.mark.parametrize("policy", ["cvpo", "sac_lag", "cpo", "ppo_lag"])
def test_columns_have_names_in_place_of_numbers(policy, tmp_path, named):
    folder = named.folder
    if policy != "cvpo":
        config = small_config(policy, "ToyNamed-v0", costs=("right", "l"), cost_limit=LIMITS)
        folder = run(config, out=tmp_path, show_progress=False).folder
    columns = set(read_progress(folder))
    numbered = {x for x in columns for end in ("_0", "_1", "/0", "/1", "/0/mean") if x.endswith(end)}
    assert not numbered
    for name in ("right", "l"):
        assert {
            f"train/costs_stat/{name}/mean",
            f"train/violation/{name}",
            f"test/cost/{name}",
            f"update/constraint/episode_cost_{name}",
        } <= columns


def test_costs_without_names_keep_their_numbers(tmp_path):
    config = small_config("ppo_lag", "ToyLineTwoCosts-v0", cost_limit=LIMITS)
    done = run(config, out=tmp_path, show_progress=False)
    assert "costs" not in done.result["config"]
    assert {"train/costs_stat/1/mean", "test/cost/0", "update/constraint/episode_cost_1"} <= set(
        read_progress(done.folder)
    )
    assert "cost 1" in evaluation_table(evaluate(done.folder, episodes=2))


def test_an_evaluation_repeats_the_run_and_has_names(named, capsys):
    evaluation = evaluate(named.folder, episodes=named.result["best"]["episodes"])
    assert evaluation.costs.tolist() == named.result["best"]["costs"]
    assert evaluation_report(evaluation)["cost_names"] == ["right", "l"]
    rows = evaluation_table(evaluation).splitlines()
    assert [row.split()[:2] for row in rows[3:5]] == [["cost", "right"], ["cost", "l"]]
    assert main(["evaluate", str(named.folder), "--episodes", "2", "--task", "ToyNamed-v0", "--quiet"]) == 0
    assert "cost l" in capsys.readouterr().out
    certificate = certify(named.folder, max_episodes=20)
    assert "mean of cost right" in certificate_table(certificate)
    with pytest.raises(ValueError, match=r"ToyNamed-v0 has 2 \(right, l\), got 1$"):
        evaluate(named.folder, episodes=2, cost_limit=3.0)
    with pytest.raises(ValueError, match="costs must not be given for KnownOptimum-v0"):
        evaluate(named.folder, episodes=2, task="KnownOptimum-v0")


def test_tables_figures_and_the_page_have_names(named, tmp_path, capsys):
    table, _ = study_table([named.folder])
    assert "ToyNamed-v0 (right, l)" in table
    csv, _ = study_table([named.folder], form="csv")
    assert "best_cost_right_mean" in csv.splitlines()[0]
    assert "best_cost_l_mean" in csv.splitlines()[0]
    for kind in ("curves", "costs", "scatter"):
        file = tmp_path / f"{kind}.svg"
        assert main(["plot", str(named.folder), "--kind", kind, "--out", str(file)]) == 0
        assert "cost right" in file.read_text()
    page = tmp_path / "page.html"
    assert main(["report", str(named.folder), "--out", str(page)]) == 0
    text = page.read_text()
    assert '"cost right"' in text
    assert "Cost: critic and reality, cost right" in text
    summaries = tmp_path / "summaries"
    assert main(["summarise", str(named.folder), "--out", str(summaries)]) == 0
    again, _ = study_table([summaries])
    assert "ToyNamed-v0 (right, l)" in again
    capsys.readouterr()


def test_the_closing_table_has_names(tmp_path, capsys):
    settings = ["--steps", "200", "--step-per-collect", "100", "--num-envs", "2", "--selection-episodes", "2"]
    settings += ["--selection-min-episodes", "2", "--final-episodes", "2", "--hidden-sizes", "8"]
    given = ["--costs", "right,left", "--cost-limit", "10,12", "--quiet", "--out", str(tmp_path)]
    assert main(["train", "ppo_lag", "ToyNamed-v0", *given, *settings]) == 0
    assert "right 10, left 12" in capsys.readouterr().out


def test_all_costs_of_a_dictionary_are_the_default_and_are_noted(tmp_path):
    config = small_config("ppo_lag", "ToyNamed-v0", cost_limit=(10.0, 10.0, 10.0))
    done = run(config, out=tmp_path, show_progress=False)
    assert done.result["config"]["costs"] == ["right", "left", "left_far"]
    with pytest.raises(ValueError, match=r"ToyNamed-v0 reports 3 \(right, left, left_far\), got 1$"):
        run(
            small_config("ppo_lag", "ToyNamed-v0", cost_limit=1.0), out=tmp_path / "none", show_progress=False
        )
    assert not (tmp_path / "none").exists()


def test_a_resumed_run_ends_as_if_nothing_had_happened(tmp_path):
    config = resumable_config("ppo_lag", "ToyNamed-v0", costs=COSTS, cost_limit=LIMITS)
    whole = run(config, out=tmp_path / "whole", run_name="run", show_progress=False)
    killed = run_killed(config, 500, tmp_path / "killed")
    resume(killed, show_progress=False)
    assert_same_run(whole.folder, killed)


def test_workers_collect_the_same_costs(tmp_path):
    done = [
        run(
            small_config("ppo_lag", "ToyNamed-v0", costs=COSTS, cost_limit=LIMITS, workers=workers),
            out=tmp_path,
            run_name=str(workers),
            show_progress=False,
        )
        for workers in (0, 2)
    ]
    assert done[0].result["last"] == done[1].result["last"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--costs", "right,up", "--cost-limit", "1,2"],
            "costs must be of right, left, left_far for ToyNamed",
        ),
        (
            ["--costs", "right,left"],
            "cost_limit must have 2 numbers, one for each of the costs right, left, got",
        ),
        (
            ["--costs", "right", "--cost-limit", "1,2"],
            "cost_limit must have 1 number for the cost right, got 1,2",
        ),
    ],
)
def test_what_cannot_be_limited_is_one_line_before_anything_is_written(given, message, tmp_path, capsys):
    assert main(["train", "cvpo", "ToyNamed-v0", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_costs_are_an_axis_of_a_sweep(tmp_path, capsys):
    study = tmp_path / "study.toml"
    study.write_text(
        'policies = ["ppo_lag"]\ntasks = ["ToyNamed-v0"]\nseeds = [0]\nsteps = 400\n'
        'cost_limits = ["10/12"]\n[settings]\ncosts = [["right", "l"], ["left", "right"]]\n'
    )
    assert main(["sweep", str(study), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "right/l" in out
    assert "left/right" in out


def test_a_config_without_names_is_saved_and_counted_as_before():
    config = make_config("cvpo", "SafetyCarCircle-v0", steps=1000)
    assert "costs" not in config.as_dict()
    assert ExperimentConfig.from_dict(config.as_dict()) == config
    named = make_config("cvpo", "SafetyPointGoal2-v0", costs=("hazards", "vases"), cost_limit=(10, 25))
    assert ExperimentConfig.from_dict(named.as_dict()) == named
    other = make_config("cvpo", "SafetyPointGoal2-v0", costs=("hazards", "v"), cost_limit=(10, 25))
    assert named.digest() != other.digest()
    free = make_config("sac", "SafetyPointGoal2-v0", costs=("hazards", "vases"))
    assert free.cost_limit == (float("inf"),) * 2


def test_python_makes_the_environment_of_a_run(named):
    env = make("ToyNamed-v0", costs=tuple(named.result["config"]["costs"]))
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[4]["cost"].shape == (2,)


def test_the_page_about_costs_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "many_costs.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    printed = re.findall(r"  # (\(.*)", "".join(blocks))
    assert len(printed) == 2
    shown = capsys.readouterr().out
    assert all(line in shown for line in printed)
