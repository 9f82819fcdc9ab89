"""Meta-learners from the command line: whole small runs on a toy family, settings and errors."""

import json
import math

import numpy as np
import pytest
import torch
from toys.settings import META_NAMES, small_config

from fsrl_ext.cli import main
from fsrl_ext.experiment import ExperimentConfig, evaluate, load_policy, make_config, run
from fsrl_ext.experiment.algorithms.meta import MetaTraining
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.report import read_progress


def test_there_are_four_of_them():
    names = [name for name, row in algorithms().items() if issubclass(row.training, MetaTraining)]
    assert names == list(META_NAMES)


@pytest.mark.parametrize("name", META_NAMES)
def test_runs_save_judge_and_load(name, tmp_path):
    config = small_config(name)
    done = run(config, out=tmp_path, show_progress=False)
    assert done.folder.name == f"MetaAim-{name}-seed0-1"
    data = json.loads((done.folder / "config.json").read_text())
    assert ExperimentConfig.from_dict({k: v for k, v in data.items() if k != "command"}) == config
    iteration = 2 * (config.policy_config.inner_steps + 1) * 40
    assert done.result["env_step"] == 640
    assert done.result["gradient_step"] == 640 / iteration
    assert [x["env_step"] for x in done.result["selections"]] == [320, 640]
    progress = read_progress(done.folder)
    for metric in ("meta/fraction", "meta/kl", "constraint/episode_cost", "adaptation/cost_0"):
        assert np.isfinite(progress[f"update/{metric}"]).any(), metric
    multipliers = progress["update/constraint/multiplier"]
    assert (np.nanmax(multipliers) > 0) == algorithm(name).constrained
    assert ("update/meta/cosine" in progress) == (name != "multitask_cpo")
    policy = load_policy(done.folder)
    assert policy.cost_limit == (5.0 if algorithm(name).constrained else math.inf,)
    assert policy.compute_action(np.zeros(2, np.float32)).shape == (1,)
    # It acts as the meta-policy, and is judged in the task of level 0 with the numbers of the run itself.
    saved = read_checkpoint(done.folder / "checkpoints" / "best.pt")["policy"]
    for key in ("head.bias", "log_std"):
        assert torch.equal(saved[f"actor.{key}"], saved[f"meta_actor.{key}"])
    assert config.env_id == "MetaAim0-v0"
    again = evaluate(done.folder, episodes=4)
    assert again.returns.mean() == done.result["best"]["return_mean"]


def test_the_same_seed_gives_the_same_curves_and_another_seed_other_tasks(tmp_path):
    curves = [
        read_progress(
            run(small_config("meta_cpo", seed=s), out=tmp_path / str(i), show_progress=False).folder
        )
        for i, s in enumerate((3, 3, 4))
    ]
    for name in ("update/adaptation/return_1", "update/meta/kl"):
        np.testing.assert_array_equal(curves[0][name], curves[1][name])
        assert not np.array_equal(curves[0][name], curves[2][name])


def test_a_new_run_starts_from_a_saved_one(tmp_path):
    first = run(small_config("meta_cpo"), out=tmp_path, show_progress=False)
    last = first.folder / "checkpoints" / "last.pt"
    second = run(
        small_config("meta_cpo", outer_kl_bound=1e-12), out=tmp_path, show_progress=False, init_from=last
    )
    there, here = (read_checkpoint(x)["policy"] for x in (last, second.folder / "checkpoints" / "last.pt"))
    assert torch.allclose(there["meta_actor.head.bias"], here["meta_actor.head.bias"], atol=1e-4)
    assert here["normaliser.count"] > there["normaliser.count"]


def test_short_runs_are_tested_less_often(tmp_path):
    # A selection takes 4 episodes of 10 steps here, a meta-iteration 160 steps.
    config = small_config("meta_cpo", steps=640, selections=50, selection_episodes=32)
    done = run(config, out=tmp_path, show_progress=False)
    assert [x["env_step"] for x in done.result["selections"]] == [320, 640]


def test_workers_and_two_costs(tmp_path):
    config = small_config(
        "meta_cpo", "MetaAimTwo", cost_limit=(5.0, math.inf), steps=160, num_envs=6, workers=2
    )
    done = run(config, out=tmp_path, show_progress=False)
    assert len(done.result["last"]["cost_mean"]) == 2
    with pytest.raises(ValueError, match="one number per cost: MetaAimTwo reports 2, got 1"):
        run(small_config("meta_cpo", "MetaAimTwo"), out=tmp_path, show_progress=False)


def test_a_family_without_level_0_is_judged_in_its_lowest_level():
    assert small_config("meta_cpo", "MetaAimOnly").env_id == "MetaAimOnly1-v0"


def test_settings_and_defaults():
    known = list_settings("meta_cpo")
    assert {"inner_steps", "meta_gradient", "outer_kl_bound", "cost_limit_start"} <= known.keys()
    for gone in ("multiplier_gains", "batch_size", "buffer_size", "actor_lr", "repeat_per_collect"):
        assert gone not in known
    assert "multiplier_gains" in list_settings("maml_lag")
    assert "cost_limit_start" not in list_settings("maml_trpo")
    config = make_config("meta_cpo", "SafetyPointStcircle")
    assert (config.cost_limit, config.training.hidden_sizes) == ((25.0,), (24, 12))
    assert (config.training.step_per_collect, config.policy_config.inner_steps) == (3000, 3)
    assert config.policy_config.normalise_steps == 360_000
    assert config.policy_config.cost_margin == 0.5
    assert make_config("multitask_cpo", "SafetyPointStcircle").policy_config.cost_margin == 0.0
    assert make_config("maml_lag", "MetaAim").policy_config.multiplier_method == "pid"
    assert make_config("multitask_cpo", "MetaAim").policy_config.inner_steps == 0
    assert make_config("maml_trpo", "MetaAim").cost_limit == (math.inf,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["meta_cpo", "MetaAmi"], "unknown family 'MetaAmi'; did you mean MetaAim"),
        (["meta_cpo", "SafetyPointStcircle1-v0"], "did you mean SafetyPointStcircle"),
        (["meta_cpo", "MetaAim", "--inner-steps", "-1"], "inner_steps must be a whole number >= 0, got -1"),
        (["meta_cpo", "MetaAim", "--meta-gradient", "second"], "one of exact, first_order, reptile"),
        pytest.param(
            ["meta_cpo", "MetaAim", "--multiplier-lr", "1"],
            "meta_cpo has no setting --multiplier-lr",
        ),
        pytest.param(
            ["maml_trpo", "MetaAim", "--cost-margin", "0.2"],
            "maml_trpo has no setting --cost-margin",
        ),
        (["maml_trpo", "MetaAim", "--cost-limit", "3"], "no constraint, got (3.0,); meta_cpo has one"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, words):
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
