"""Runs whose actions last for several steps: what counts environment steps, and how they go on."""

import json

import numpy as np
import pytest
import torch
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext import cli
from fsrl_ext.env import make
from fsrl_ext.experiment import certify, evaluate, export_policy, load_policy, make_config, resume, run
from fsrl_ext.experiment.training import build
from fsrl_ext.report import read_progress
from fsrl_ext.trainer import seed_range

HORIZON, REPEAT = 20, 4
"""Of ToyLine-v0, which has decisions of full length with this number, and a shorter one with 3."""


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", ["cvpo", "ppo_lag", "cpo"])
def test_steps_are_environment_steps(name, tmp_path):
    config = small_config(name, action_repeat=REPEAT, steps=1600, selection_episodes=4)
    folder = run(config, out=tmp_path, show_progress=False).folder
    result, progress = result_of(folder), read_progress(folder)
    assert result["env_step"] == 1600
    assert [x["env_step"] for x in result["selections"]] == [800, 1600]
    assert result["train_episodes"] == 1600 // HORIZON
    ended = np.isfinite(progress["train/lens_stat/mean"])
    assert set(progress["train/lens_stat/mean"][ended]) == {HORIZON}
    assert progress["env_step"][-1] == 1600
    if name == "cvpo":
        assert result["gradient_step"] == config.training.update_per_step * 1600


@pytest.mark.parametrize(("name", "rows"), [("sac_lag", 800 // REPEAT), ("trpo_lag", 80 // REPEAT)])
def test_a_decision_is_one_transition_of_the_buffer(name, rows):
    config = small_config(name, action_repeat=REPEAT, **({"warmup_steps": 400} if name == "sac_lag" else {}))
    policy, spec = build.build_policy(config)
    assert spec.max_episode_steps == HORIZON // REPEAT
    assert policy.max_episode_steps == HORIZON // REPEAT
    collector = build.train_collector(policy, config)
    stored = []
    trainer = config.training.trainer(
        policy, collector, task=config.task, seed=0, steps=800, selections=1, warm_start=False,
        test_collector=None, show_progress=False, on_collect_end=lambda: stored.append(len(collector.buffer)),
    )  # fmt: skip
    trainer.run()
    assert stored[-1] == rows
    assert trainer.env_step == 800
    collector.close()


def test_the_result_is_that_of_the_policy_played_step_by_step(tmp_path):
    folder = run(small_config("cvpo", action_repeat=3), out=tmp_path, show_progress=False).folder
    policy, env, costs, returns = load_policy(folder), make("ToyLine-v0"), [], []
    for seed in seed_range("final", 4):
        obs, _ = env.reset(seed=seed)
        cost, total, step, over = 0.0, 0.0, 0, False
        while not over:
            if step % 3 == 0:
                with torch.no_grad():
                    action = policy.compute_action(obs)
            obs, reward, terminated, truncated, info = env.step(action)
            step, total, cost = step + 1, total + float(reward), cost + float(info["cost"])
            over = terminated or truncated
        costs.append(cost)
        returns.append(total)
    best = result_of(folder)["best"]
    np.testing.assert_allclose(np.array(best["costs"])[:, 0], costs, rtol=1e-4)
    np.testing.assert_allclose(best["returns"], returns, rtol=1e-4)
    again = evaluate(folder, episodes=4)
    assert again.returns.tolist() == best["returns"]
    elsewhere = evaluate(folder, episodes=4, task="ToyLine-v0")
    assert elsewhere.returns.tolist() == best["returns"]


@pytest.mark.parametrize("name", ["cvpo", "ppo_lag"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(name, tmp_path):
    config = resumable_config(name, action_repeat=3)
    whole = run(config, out=tmp_path / "whole", run_name="run", show_progress=False).folder
    killed = run_killed(config, 600, tmp_path / "killed")
    assert_same_run(resume(killed, show_progress=False).folder, whole)


def test_one_core_and_two_make_the_same_run(tmp_path):
    config = small_config("cvpo", action_repeat=3, collect_ahead=True)
    one, two = (
        run(config, out=tmp_path, run_name=f"cores{n}", cores=n, show_progress=False).folder for n in (1, 2)
    )
    assert_same_run(one, two)


def test_a_proof_knows_what_all_steps_of_an_episode_can_cost(tmp_path):
    folder = run(small_config("cvpo", action_repeat=REPEAT), out=tmp_path, show_progress=False).folder
    certificate = certify(folder, cost_limit=HORIZON - 0.001, max_episodes=4)
    assert certificate.cost_bound == (HORIZON,)


def test_an_exported_policy_says_how_long_its_actions_last(tmp_path, capsys):
    for repeat in (1, 3):
        folder = run(small_config("ddpg_lag", action_repeat=repeat), out=tmp_path, show_progress=False).folder
        out = tmp_path / f"{repeat}.pt"
        assert export_policy(folder, out, format="torchscript").metadata.get("action_repeat", 1) == repeat
        command = ["export", str(folder), "--format", "torchscript", "--out", f"{out}.again"]
        assert cli.main(command) == 0
        assert ("each action is for 3 environment steps" in capsys.readouterr().out) == (repeat == 3)


def test_a_run_without_repetition_has_the_digest_of_earlier_versions():
    config, repeated = (small_config("cvpo", action_repeat=n) for n in (1, 2))
    data = config.as_dict()
    del data["training"]["action_repeat"]
    assert type(config).from_dict(data).digest() == config.digest() != repeated.digest()


def test_discounted_limits_and_meta_learners_have_no_repetition():
    with pytest.raises(ValueError, match="action_repeat must be 1 with limit_unit='discounted'"):
        small_config("cvpo", action_repeat=2, limit_unit="discounted")
    with pytest.raises(ValueError, match="unknown setting 'action_repeat'"):
        make_config("meta_cpo", "MetaAim", action_repeat=2)
    for value in (0, -1, 2.5):
        with pytest.raises((TypeError, ValueError), match="action_repeat must be"):
            small_config("cvpo", action_repeat=value)
