"""Every policy of the command line through a whole small run, and what its name means for its settings."""

import json
import math

import numpy as np
import pytest
import torch
from toys.settings import META_NAMES, small_config

from fsrl_ext.cli import main
from fsrl_ext.experiment import ExperimentConfig, load_policy, make_config, run
from fsrl_ext.experiment.algorithms.offpolicy import OffpolicyTraining, SACTraining
from fsrl_ext.experiment.algorithms.onpolicy import OnpolicyTraining
from fsrl_ext.experiment.explained import explained_defaults
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.policy import SACLagConfig, SACLagPolicy
from fsrl_ext.report import read_progress

LAGRANGIAN = [name for name in algorithms() if name != "cvpo" and name not in META_NAMES]


@pytest.mark.parametrize("name", LAGRANGIAN)
def test_runs_save_judge_and_load(name, tmp_path):
    config = small_config(name)
    done = run(config, out=tmp_path, show_progress=False)
    assert done.folder.name == f"ToyLine-v0-{name}-seed0-1"
    data = json.loads((done.folder / "config.json").read_text())
    assert ExperimentConfig.from_dict({k: v for k, v in data.items() if k != "command"}) == config
    progress = read_progress(done.folder)
    row = algorithm(name)
    constrained, on_policy = row.constrained, issubclass(row.training, OnpolicyTraining)
    multiplier = "update/constraint/multiplier"
    metrics = ("loss/critic_cost",) if on_policy else ("loss/actor", "q/cost")
    for metric in (*metrics, "constraint/episode_cost"):
        assert np.isfinite(progress[f"update/{metric}"]).any(), metric
    assert (np.nanmax(progress.get(multiplier, [0.0])) > 0) == constrained
    if on_policy:
        assert done.result["gradient_step"] == 10
    assert done.result["last"]["cost_mean"][0] >= 0
    policy = load_policy(done.folder)
    assert policy.cost_limit == (2.0 if constrained else math.inf,)
    assert policy.compute_action(np.zeros(2, np.float32)).shape == (1,)


def test_same_seed_same_curves(tmp_path):
    curves = [
        read_progress(run(small_config("td3_lag"), out=tmp_path / str(i), show_progress=False).folder)
        for i in range(2)
    ]
    np.testing.assert_array_equal(curves[0]["update/loss/actor"], curves[1]["update/loss/actor"])


def test_new_run_starts_with_the_saved_multipliers_and_moments(tmp_path):
    first = run(small_config("sac_lag"), out=tmp_path, show_progress=False)
    saved = read_checkpoint(first.folder / "checkpoints" / "last.pt")
    assert saved["policy"]["multipliers.multipliers"].item() > 0
    second = run(
        small_config("sac_lag", steps=80, selections=1, update_per_step=1e-9),
        out=tmp_path,
        show_progress=False,
        init_from=first.folder / "checkpoints" / "last.pt",
    )
    assert set(second.result["init_from"]["optimisers"]) == {"actor_optim", "critic_optim", "alpha_optim"}
    again = read_checkpoint(second.folder / "checkpoints" / "last.pt")["policy"]
    assert all(torch.equal(saved["policy"][k], again[k]) for k in again if k != "_extra_state")


def test_training_follows_a_limit_that_tightens(tmp_path, monkeypatch):
    seen, learn = [], SACLagPolicy.learn

    def watched(self, *args, **kwargs):
        seen.append(self.cost_limit[0])
        return learn(self, *args, **kwargs)

    monkeypatch.setattr(SACLagPolicy, "learn", watched)
    config = small_config("sac_lag", cost_limit_start=20.0, cost_limit_decay_steps=400)
    run(config, out=tmp_path, show_progress=False)
    assert seen[0] == pytest.approx(20.0)
    assert seen[-1] < 3.0


def test_every_policy_has_its_own_settings_and_defaults():
    assert "kl_bound" in list_settings("cvpo")
    assert "kl_bound" not in list_settings("sac_lag")
    assert "alpha" in list_settings("sac_lag")
    assert "exploration_std" in list_settings("ddpg")
    for name in ("sac", "ddpg", "td3"):
        assert (
            not {"multiplier_gains", "rescale", "threshold", "cost_limit_start"} & list_settings(name).keys()
        )
    assert "covariance" not in list_settings("sac_lag")
    for name, row in algorithms().items():
        assert issubclass(row.training, OnpolicyTraining) == ("repeat_per_collect" in list_settings(name))
        assert issubclass(row.training, OffpolicyTraining) == ("buffer_size" in list_settings(name))
    assert "actor_lr" not in list_settings("cpo")
    assert "multiplier_gains" in list_settings("trpo_lag")
    assert not {"multiplier_gains", "rescale"} & list_settings("trpo").keys()
    config = make_config("cpo", "SafetyPointGoal1-v0")
    assert (config.training.step_per_collect, config.training.hidden_sizes) == (20_000, (64, 64))
    assert make_config("ppo_lag", "SafetyBallCircle-v0").training.step_per_collect == 6_000
    assert make_config("cvpo", "SafetyBallCircle-v0").training.step_per_collect == 1_000
    config = make_config("cpo", "SafetyBallCircle-v0")
    assert (config.policy_config.cost_margin, config.policy_config.entropy_weight) == (0.2, 0.01)
    assert make_config("cpo", "SafetyCarCircle-v0").policy_config.entropy_weight == 0.02
    assert make_config("cpo", "SafetyPointGoal1-v0").policy_config.cost_margin == 0.0
    assert make_config("cpo", "SafetyBallCircle-v0", cost_margin=0.1).policy_config.cost_margin == 0.1
    for name in algorithms():
        assert all(setting.help for setting in list_settings(name).values()), name
    assert explained_defaults("td3_lag")["batch_size"].value == 256
    assert explained_defaults("cvpo")["batch_size"].value == 128
    assert list_settings("ddpg_lag")["multiplier_gains"].parse("1,0.5,0") == (1.0, 0.5, 0.0)
    config = make_config("td3_lag", "SafetyPointCircle1-v0")
    assert (config.training.batch_size, config.training.reward_ensemble) == (256, 2)
    assert (config.policy_config.gamma, config.cost_limit) == (0.99, (25.0,))
    assert make_config("ddpg_lag", "SafetyBallCircle-v0").training.reward_ensemble == 1
    cal = make_config("sac_lag", "SafetyBallCircle-v0", preset="cal")
    assert (cal.policy_config.cost_reduction, cal.training.cost_ensemble) == ("ucb", 4)


def test_a_run_is_longer_than_its_warm_up():
    for name in ("td3", "td3_lag", "ddpg", "ddpg_lag"):
        assert make_config(name, "SafetyBallCircle-v0").training.warmup_steps == 10_000
    with pytest.raises(ValueError, match=r"steps must be more than warmup_steps=10000, .*, got 10000"):
        make_config("td3", "SafetyBallCircle-v0", steps=10_000)


def test_policies_without_a_constraint_have_no_limit():
    assert make_config("sac", "SafetyBallCircle-v0").cost_limit == (math.inf,)
    assert make_config("sac", "ToyLineTwoCosts-v0", cost_limit=(math.inf, math.inf)).cost_limit[1] == math.inf
    with pytest.raises(ValueError, match=r"cost_limit must be inf .* for td3, .*; td3_lag has one"):
        make_config("td3", "SafetyBallCircle-v0", cost_limit=10.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"policy": "ddpg", "cost_limit": math.inf, "cost_limit_decay_steps": 3},
            "cost_limit_decay_steps is not used by ddpg, got 3",
        ),
        (
            {"policy": "ddpg", "cost_limit": math.inf, "training": SACTraining()},
            "training must be a OffpolicyTraining for ddpg, got SACTraining",
        ),
        ({"policy": "sad", "cost_limit": 1.0}, "unknown policy 'sad'; did you mean sac"),
        (
            {"policy": "ddpg_lag", "cost_limit": 1.0, "policy_config": SACLagConfig()},
            "policy_config must be a DDPGLagConfig for ddpg_lag, got SACLagConfig",
        ),
    ],
)  # fmt: skip
def test_configs_that_do_not_belong_together_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        ExperimentConfig(task="ToyLine-v0", **arguments)


def test_help_is_about_the_policy_that_is_named(capsys):
    texts = {}
    for name in ("sac_lag", "td3"):
        with pytest.raises(SystemExit, match="0"):
            main(["train", name, "--help"])
        texts[name] = capsys.readouterr().out
    assert "--augmented-penalty" in texts["sac_lag"]
    assert "--policy-delay" not in texts["sac_lag"]
    assert "--policy-delay" in texts["td3"]
    assert "--multiplier-gains" not in texts["td3"]
    assert "those of td3" in texts["td3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ["sac", "ToyLine-v0", "--multiplier-lr", "1"],
            "sac has no setting --multiplier-lr",
        ),
        (["cvpo", "ToyLine-v0", "--policy-delay", "3"], "cvpo has no setting --policy-delay"),
        (["td3", "ToyLine-v0", "--cost-limit", "3"], "cost_limit must be inf"),
        (["cpo", "ToyLine-v0", "--actor-lr", "1"], "cpo has no setting --actor-lr"),
        (["ppo", "ToyLine-v0", "--cost-limit", "3"], "cost_limit must be inf"),
        (["cvpo", "ToyLine-v0", "--preset", "cal"], "preset must be one of tuned, paper, got 'cal'"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, words):
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
