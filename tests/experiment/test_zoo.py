"""The policies of the zoo are what their records say, and ``zoo:NAME`` works wherever a run is expected."""

import configparser
import dataclasses
import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from toys.policies import assert_same_state, tensors
from toys.settings import small_config
from toys.studies import assert_refused

from fsrl_ext.cli import main
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment import adapt, evaluate, load_policy, run
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, write_checked
from fsrl_ext.report.files import read_json, write_json
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.zoo import policies, zoo_file, zoo_policies

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "make_zoo.py"
SHIPPED = zoo_policies()
FOLDER = policies.FOLDER


def load_script():
    spec = importlib.util.spec_from_file_location("make_zoo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_zoo = load_script()


# --- the policies that are shipped ---


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.name)
def test_a_shipped_policy_is_what_its_record_says(one):
    data = read_checkpoint(one.file)
    config = data["config"]
    assert (config["task"], config["policy"], config["seed"]) == (one.task, one.policy, one.seed)
    assert (tuple(config["cost_limit"]), config["steps"]) == (one.cost_limit, one.steps)
    assert data["counters"]["env_step"] == one.env_step <= one.steps * 1.05
    assert hashlib.sha256(one.file.read_bytes()).hexdigest() == one.sha256
    bound = np.add(one.cost_mean, one.cost_stderr)
    assert (bound <= one.cost_limit).all()
    assert "/" not in one.command


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.name)
def test_a_shipped_policy_is_feasible(one):
    evaluation = evaluate(f"zoo:{one.name}", episodes=3)
    assert (evaluation.cost_mean <= one.cost_limit).all()
    spread = one.return_stderr * np.sqrt(one.episodes)  # of a single episode
    assert abs(evaluation.return_mean - one.return_mean) < 4 * spread + 0.01 * abs(one.return_mean)


def test_the_zoo_is_small_and_part_of_the_package():
    files = [path for path in FOLDER.iterdir() if path.suffix in (".pt", ".json")]
    assert len(files) == 2 * len(SHIPPED) > 0
    assert sum(path.stat().st_size for path in files) <= make_zoo.MOST_BYTES
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["fsrl_ext.zoo"] == "*.pt, *.json"


def test_the_command_lists_what_the_records_hold(capsys):
    assert main(["zoo"]) == 0
    printed = capsys.readouterr().out
    for one in SHIPPED:
        row = next(line for line in printed.splitlines() if line.startswith(f"zoo:{one.name} "))
        assert row.split()[1:3] == [one.task, one.policy]
        for text in (f"{one.steps:,}", f"{one.return_mean:.1f} ±", f"{one.cost_mean[0]:.1f} ±", " kB"):
            assert text in row
        assert one.command in printed
    assert main(["zoo", SHIPPED[0].name]) == 0
    assert main(["zoo", f"zoo:{SHIPPED[0].name}"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["evaluate", "--certify", "0.95"],
        ["adapt", "--task", "ToyLine-v0"],
        ["train", "cvpo", "ToyLine-v0", "--init-from"],
        ["zoo"],
    ],
    ids=" ".join,
)
def test_an_unknown_name_is_one_line_with_the_nearest_names(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"zoo:{SHIPPED[0].name}"
    wrong = f"{name[:-1]}x"
    last = arguments[-1] == "--init-from"
    arguments = [*arguments, wrong] if last else [arguments[0], wrong, *arguments[1:]]
    assert_refused(arguments, name, capsys)
    assert not list(tmp_path.iterdir())


# --- a zoo of toys ---


CONFIG = small_config("cpo", "ToyLine-v0", cost_limit=20.0, final_episodes=6)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of CPO, whose policy can be adapted, too."""
    return run(CONFIG, out=tmp_path_factory.mktemp("runs"), show_progress=False)


@pytest.fixture
def zoo(done, tmp_path, monkeypatch):
    """The zoo of the run's best policy."""
    monkeypatch.setattr(policies, "FOLDER", tmp_path / "zoo")
    policies.FOLDER.mkdir()
    make_zoo.make(done.folder, "cpo-toy")
    return policies.FOLDER


def test_the_record_is_that_of_the_final_evaluation(done, zoo):
    (one,) = zoo_policies()
    best = done.result["best"]
    assert (one.return_mean, list(one.cost_mean)) == (best["return_mean"], best["cost_mean"])
    assert (one.return_stderr, list(one.cost_stderr)) == (best["return_stderr"], best["cost_stderr"])
    assert (one.episodes, one.env_step) == (6, best["env_step"])
    assert one == make_zoo.make(done.folder, "cpo-toy", replace=True)
    assert sorted(path.name for path in zoo.iterdir()) == ["cpo-toy.json", "cpo-toy.pt"]


def test_a_policy_of_the_zoo_acts_as_in_its_run(done, zoo):
    one, other = load_policy("zoo:cpo-toy"), load_policy(done.folder)
    assert_same_state(tensors(one), tensors(other))
    here, there = evaluate("zoo:cpo-toy", episodes=3), evaluate(done.folder, episodes=3)
    np.testing.assert_array_equal(here.returns, there.returns)
    assert zoo_file("cpo-toy").stat().st_size < RunFolder(done.folder).best.stat().st_size


def test_a_run_starts_from_the_zoo_without_moments(done, zoo, tmp_path):
    config = dataclasses.replace(CONFIG, steps=80, selections=1)
    started = run(config, init_from="zoo:cpo-toy", out=tmp_path, show_progress=False)
    origin = started.result["init_from"]
    assert origin["checkpoint"] == str(zoo / "cpo-toy.pt")
    assert origin["optimisers"] == []
    assert "init_from='zoo:cpo-toy'" in started.result["command"]


def test_a_policy_of_the_zoo_is_adapted(zoo):
    adaptation = adapt("zoo:cpo-toy", "ToyLine-v0", steps=1, episodes=2, step_per_collect=40)
    assert len(adaptation.points) == 2


def test_a_checkpoint_that_lost_one_optimiser_is_still_refused(done, zoo, tmp_path):
    """No moments at all are the zoo's; some of them are damage."""
    data = read_checkpoint(RunFolder(done.folder).best)
    assert data["optimisers"]
    data["optimisers"] = {"other": next(iter(data["optimisers"].values()))}
    write_checked(tmp_path / "x.pt", {k: v for k, v in data.items() if k != "versions"}, kind="checkpoint")
    with pytest.raises(CheckpointError, match="optim"):
        load_policy(tmp_path / "x.pt")


def changed(folder, done, **values):
    """A copy of the run's result with other values, beside its checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.pt").write_bytes(RunFolder(done.folder).best.read_bytes())
    write_json(folder / "result.json", {**read_json(done.folder / "result.json"), **values})
    return folder


def test_what_the_maker_refuses(done, zoo, tmp_path, monkeypatch, capsys):
    best = done.result["best"]
    cases = [
        (changed(tmp_path / "a", done, best={**best, "feasible": False}), "is infeasible in its final"),
        (changed(tmp_path / "b", done, config={**done.result["config"], "cost_limit": [np.inf]}), "no limit"),
        (tmp_path / "nothing", "has no result.json"),
    ]
    for folder, message in cases:
        with pytest.raises(ValueError, match=message):
            make_zoo.make(folder, "other")
    for name, message in (("cpo-toy", "--replace"), ("Cpo_Toy", "name must be"), ("../x", "name must be")):
        with pytest.raises(ValueError, match=message):
            make_zoo.make(done.folder, name)
    monkeypatch.setattr(make_zoo, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="larger than"):
        make_zoo.make(done.folder, "other")
    assert sorted(path.name for path in zoo.iterdir()) == ["cpo-toy.json", "cpo-toy.pt"]
    monkeypatch.setattr(sys, "argv", ["make_zoo.py", str(done.folder), "cpo-toy"])
    assert make_zoo.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_infeasible_policy_of_today_is_refused(done, zoo, monkeypatch):
    def infeasible(file, episodes):
        return dataclasses.replace(evaluate(file, episodes=episodes), cost_limit=(-1.0,))

    monkeypatch.setattr(make_zoo, "evaluate", infeasible)
    with pytest.raises(ValueError, match="with the code of today"):
        make_zoo.make(done.folder, "other")
    assert not (zoo / "other.pt").exists()


def test_commands_are_noted_without_folders():
    command = "fsrl-ext train cvpo T-v0 --steps 10 --quiet --out /a/b --run-name=x --cores 2 --cost-limit 5"
    assert make_zoo._command(command) == "fsrl-ext train cvpo T-v0 --steps 10 --cost-limit 5"
