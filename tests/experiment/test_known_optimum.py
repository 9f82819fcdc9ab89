"""The benchmark on the tasks with a known optimum, as a command with short runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fsrl_ext
from fsrl_ext.env import make
from fsrl_ext.experiment import make_config
from fsrl_ext.experiment.algorithms import MetaTraining
from fsrl_ext.experiment.registry import algorithms

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "known_optimum.py"


@pytest.fixture(scope="module")
def benchmark_module():
    spec = importlib.util.spec_from_file_location("known_optimum", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(benchmark_module, monkeypatch):
    """Runs the command in this process."""

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, arguments)])
        return benchmark_module.main()

    return main


@pytest.fixture(scope="module")
def short_runs(tmp_path_factory):
    """Two short runs side by side: their folder, the arguments, and the finished command."""
    folder = tmp_path_factory.mktemp("known_optimum")
    chosen = ("--policies", "sac_lag,ppo_lag", "--cases", "all_steps", "--out", folder)
    short = ("--steps", 800, "--seed", 3, "--set", "gamma=0.9", "--set", "batch_size=16")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "run", *map(str, chosen + short), "--jobs", "2"],
        capture_output=True,
        text=True,
        # The script lies outside of the package's folder and takes the package of this checkout.
        env={**os.environ, "PYTHONPATH": str(Path(fsrl_ext.__file__).parents[1])},
    )
    return folder, chosen, short, done


def test_every_policy_with_a_limit_meets_every_case_at_the_limit_it_is_meant_for(benchmark_module):
    policies = benchmark_module.constrained_policies()
    assert set(policies) >= {"cvpo", "sac_lag", "ddpg_lag", "td3_lag", "cpo", "trpo_lag", "ppo_lag", "focops"}
    for policy in policies:
        row = algorithms()[policy]
        assert row.constrained
        assert not issubclass(row.training, MetaTraining)
    for case, task in benchmark_module.CASES.items():
        (limit,) = make_config("cvpo", task).cost_limit
        assert limit == pytest.approx(3.0 * make(task).unwrapped.cost_scale), case


def test_runs_side_by_side_are_those_of_one_process(short_runs, benchmark_module):
    folder, _, _, done = short_runs
    files = {file.name: json.loads(file.read_text()) for file in folder.iterdir()}
    assert sorted(files) == ["ppo_lag-all_steps-seed3.json", "sac_lag-all_steps-seed3.json"], done.stderr
    for result in files.values():
        config = benchmark_module.config_for(
            result["policy"], "all_steps", steps=800, seed=3, settings=result["settings"]
        )
        assert (config.policy_config.gamma, config.training.batch_size) == (0.9, 16)
        again = benchmark_module.train(config)
        assert again.pop("seconds") > 0
        assert again == {key: result[key] for key in again}
        assert (result["cost_limit"], result["optimal_return"]) == (3.0, pytest.approx(20.4))
        # All observations are the same, so a deterministic policy has one throttle, which the cost tells.
        x = result["deterministic"]["cost"] * 3.0 / 10.0
        assert 0 < x < 1
        assert result["deterministic"]["return"] == pytest.approx(40 * (1 - (1 - x) ** 2) / 20.4, rel=1e-3)
        # By Jensen's inequality a random throttle of the same mean cost earns less.
        x = result["stochastic"]["cost"] * 3.0 / 10.0
        assert result["stochastic"]["return"] < 0.99 * 40 * (1 - (1 - x) ** 2) / 20.4


def test_what_is_there_is_skipped_and_other_settings_are_refused(short_runs, here, capsys):
    folder, chosen, short, done = short_runs
    before = {file: file.read_text() for file in folder.iterdir()}
    missed = any(misses in done.stdout for misses in ("- sac_lag", "- ppo_lag"))
    assert here("run", *chosen, *short) == done.returncode == int(missed)
    assert capsys.readouterr().out == done.stdout[done.stdout.index("| Place of the cost") :]
    for arguments, message in (
        (("run", *chosen, "--steps", 1600, "--seed", 3), "other settings; --again replaces it"),
        (("run", *chosen, *short, "--set", "gama=0.9"), "must name a setting of sac_lag, got 'gama'"),
        (("run", *chosen, *short, "--set", "gamma"), "--set must be NAME=VALUE, got 'gamma'"),
        (("table", "--policies", "ppo"), "--policies must be of cvpo, sac_lag, "),
        (("table", "--cases", "first"), "--cases must be of all_steps, first_six, "),
    ):
        with pytest.raises(SystemExit) as ended:
            here(*arguments)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert {file: file.read_text() for file in folder.iterdir()} == before


def shares(returns, costs):
    return {
        "policy": "cpo",
        "case": "noise",
        "seed": 0,
        **{
            mode: {"return": r, "cost": c}
            for mode, r, c in zip(("deterministic", "stochastic"), returns, costs, strict=True)
        },
    }


def test_the_table_names_what_misses_and_what_is_absent(here, tmp_path, capsys):
    def table(result, cases="noise"):
        (tmp_path / "cpo-noise-seed0.json").write_text(json.dumps(result))
        given = ("table", "--policies", "cpo", "--cases", cases, "--out", tmp_path)
        return here(*given), capsys.readouterr().out

    code, text = table(shares((0.8, 0.9), (1.1, 1.0)))
    assert (code, "| cpo | 0.80 at 1.10 |" in text, "Nothing misses a bar." in text) == (0, True, True)
    for result in (shares((0.9, 0.79), (1.0, 1.0)), shares((0.9, 0.9), (1.11, 1.0))):
        code, text = table(result)
        assert code == 1
        assert "- cpo, noise, seed 0: deterministic 0.90 at 1." in text
        assert "| cpo | **" in text
    code, text = table(shares((1.0, 1.0), (1.0, 1.0)), cases="noise,clock")
    assert (code, text.splitlines()[-1]) == (1, "- cpo, clock: no result")
