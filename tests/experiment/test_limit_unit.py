"""Runs whose limits are on discounted costs: their files, verdicts and tables, and how they go on."""

import json

import numpy as np
import pytest
import torch
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext import cli
from fsrl_ext.env import make
from fsrl_ext.experiment import ExperimentConfig, adapt, certify, evaluate, load_policy, resume, run
from fsrl_ext.experiment.saved.adapt_report import adaptation_report, adaptation_table
from fsrl_ext.experiment.saved.evaluate import evaluation_report, evaluation_table
from fsrl_ext.functional.returns import discounted_steps
from fsrl_ext.report import read_progress
from fsrl_ext.trainer import seed_range

HORIZON, COST_GAMMA = 20, 0.8
UNIT = {"limit_unit": "discounted", "cost_gamma": COST_GAMMA}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a short run of an off-policy policy."""
    config = small_config("sac_lag", **UNIT, steps=400, selections=2, selection_episodes=4)
    return run(config, out=tmp_path_factory.mktemp("runs"), show_progress=False).folder


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    """The folder of a short run of a meta-learner."""
    config = small_config("meta_cpo", **UNIT)
    return run(config, out=tmp_path_factory.mktemp("runs"), show_progress=False).folder


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def played(folder, seeds):
    """Return the sums of costs and their discounted sums ``[E]`` of deterministic episodes, step by step."""
    policy, sums = load_policy(folder), []
    env = make("ToyLine-v0")
    for seed in seeds:
        obs, _ = env.reset(seed=seed)
        costs, over = [], False
        while not over:
            with torch.no_grad():
                obs, _, terminated, truncated, info = env.step(policy.compute_action(obs))
            costs.append(float(info["cost"]))
            over = terminated or truncated
        sums.append((sum(costs), sum(COST_GAMMA**t * c for t, c in enumerate(costs))))
    env.close()
    return np.array(sums).T


def test_a_run_judges_in_the_unit_of_its_limits_and_keeps_the_other(saved):
    result = result_of(saved)
    assert result["config"]["policy_config"]["limit_unit"] == "discounted"
    (limit,) = result["config"]["cost_limit"]
    sums, discounted = played(saved, seed_range("final", 4))
    best = result["best"]
    np.testing.assert_allclose(np.array(best["costs"])[:, 0], discounted, rtol=1e-4)
    np.testing.assert_allclose(np.array(best["other_costs"])[:, 0], sums, rtol=1e-4)
    assert best["cost_mean"] == [pytest.approx(discounted.mean(), rel=1e-4)]
    assert best["other_cost_mean"] == [pytest.approx(sums.mean(), rel=1e-4)]
    for one in (best, result["last"], *result["selections"]):
        within = one["cost_mean"][0] + one["cost_stderr"][0] <= limit
        assert one["feasible"] == within
        assert one["cost_mean"][0] < one["other_cost_mean"][0]
    progress = read_progress(saved)
    ended = np.isfinite(progress["train/returns_stat/mean"])
    cost, sums = (progress[f"train/{x}"][ended] for x in ("discounted_cost/0", "costs_stat/0/mean"))
    assert (cost < 0.5 * sums).all()
    # The excess is that of the discounted costs.
    excess = np.maximum(cost - limit, 0.0) * progress["train/n_collected_episodes"][ended]
    assert (progress["train/violation/0"][ended] >= excess - 1e-6).all()
    assert progress["train/violation/0"][ended].sum() < 0.5 * (sums * 4).sum()


def test_saved_policies_are_judged_in_the_unit_of_their_run(saved):
    evaluation, best = evaluate(saved, episodes=4), result_of(saved)["best"]
    assert evaluation.limit_unit == "discounted"
    assert evaluation.costs.tolist() == best["costs"]
    assert evaluation.other_costs.tolist() == best["other_costs"]
    report = evaluation_report(evaluation)
    assert (report["limit_unit"], report["other_cost_mean"]) == ("discounted", best["other_cost_mean"])
    rows = [line.split()[:2] for line in evaluation_table(evaluation).splitlines()]
    assert ["discounted", "cost"] in rows
    assert ["episode", "cost"] in rows


def test_the_bound_of_a_proof_is_discounted_too(saved):
    certificate = certify(saved, cost_limit=4.999)
    assert certificate.cost_bound == (pytest.approx(discounted_steps(HORIZON, COST_GAMMA), rel=1e-6),)
    assert certificate.evaluation.limit_unit == "discounted"
    # No episode can cost more than that, so a limit above is kept whatever happens.
    assert certify(saved, cost_limit=5.0).verdict == "within"


def test_tables_keep_the_units_apart(saved, tmp_path, capsys):
    config = small_config("sac_lag", steps=400, selections=2, selection_episodes=4)
    other = run(config, out=tmp_path, show_progress=False).folder
    assert cli.main(["table", str(saved), str(other), "--part", "policies"]) == 0
    text = capsys.readouterr().out
    assert "ToyLine-v0 (discounted)" in text
    assert "best episode cost" in text
    assert "warning: ToyLine" not in text  # no row with both
    assert cli.main(["table", str(other), "--part", "policies"]) == 0
    assert "episode cost" not in capsys.readouterr().out


def test_diagnosis_is_in_the_unit_of_the_run(saved, capsys):
    assert cli.main(["diagnose", str(saved), "--episodes", "3", "--states", "0", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "discounted cost [95%]" in text
    assert "The cost is" in text
    assert "discounted, per deterministic episode" in text


def test_adaptation_is_in_the_unit_of_the_run(meta):
    done = adapt(meta, "MetaAim0-v0", steps=1, episodes=4)
    assert done.limit_unit == adaptation_report(done)["limit_unit"] == "discounted"
    for point in done.points:
        assert point.tested.limit_unit == point.collected.limit_unit == "discounted"
        assert (point.collected.costs < point.collected.other_costs).all()
    assert "discounted cost" in adaptation_table(done)


def test_learning_goes_on_in_the_unit_of_the_run(tmp_path):
    """On-policy episodes that are open when the run is killed keep the numbers of their steps."""
    for name in ("cpo", "cvpo"):
        config = resumable_config(name, **UNIT)
        whole = run(config, out=tmp_path / name, run_name="whole", show_progress=False).folder
        folder = run_killed(config, 500, tmp_path / name)
        resume(folder, show_progress=False)
        assert_same_run(whole, folder)


def test_the_unit_is_a_setting_of_every_algorithm(capsys):
    for name in ("cvpo", "sac", "ppo_lag", "maml_trpo"):
        with pytest.raises(SystemExit):
            cli.main(["train", name, "--help"])
        assert "--limit-unit" in capsys.readouterr().out
    task = "ToyLine-v0"
    plain, unit = small_config("cvpo", task), small_config("cvpo", task, limit_unit="discounted")
    assert plain.digest() != unit.digest()
    data = plain.as_dict()
    del data["policy_config"]["limit_unit"]  # as in files of earlier versions
    assert ExperimentConfig.from_dict(data).digest() == plain.digest()
    with pytest.raises(ValueError, match=r"limit_unit must be .*, got 'steps'"):
        small_config("cvpo", task, limit_unit="steps")
