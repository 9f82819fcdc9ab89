"""Runs with recurrent networks: learning what needs memory, resuming, playing, refusing."""

import gymnasium
import numpy as np
import pytest
import torch
from toys.cmdps import CueEnv
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import OFFPOLICY_NAMES, small_config
from toys.tasks import HORIZON

from fsrl_ext.cli import main
from fsrl_ext.experiment import certify, evaluate, export_policy, load_policy, make_config, run
from fsrl_ext.experiment import resume as resume_run
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.saved.diagnosis.diagnose import diagnose
from fsrl_ext.experiment.saved.film import _play
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.build import build_policy
from fsrl_ext.net import RecurrentActor
from fsrl_ext.policy import EpisodeActor

TASK = "ToyCue-v0"
ABLE = tuple(name for name, row in algorithms().items() if row.training.can_be_recurrent)
FEW = {"steps": 400, "selections": 1, "gru_size": 8, "bptt_steps": 7}


def recurrent_config(name, task=TASK, **settings):
    return small_config(name, task, **{"network": "gru", **FEW, **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("runs")
    return run(recurrent_config("ppo_lag"), out=out, show_progress=False, cores=1).folder


def test_the_on_policy_algorithms_can_be_recurrent():
    assert ABLE == ("cpo", "trpo_lag", "ppo_lag", "focops", "trpo", "ppo")


@pytest.mark.parametrize(("name", "steps"), [("ppo_lag", 20_000), ("cpo", 10_000)])
def test_a_recurrent_policy_learns_what_needs_memory_and_the_limit(name, steps, tmp_path):
    limit = 8.0
    config = make_config(
        name, TASK, network="gru", gru_size=16, hidden_sizes=(32,), cost_limit=limit, steps=steps,
        step_per_collect=400, num_envs=10, selections=1, selection_episodes=10, final_episodes=20, workers=0,
    )  # fmt: skip
    result = run(config, out=tmp_path, show_progress=False, cores=1).result["last"]
    # A memoryless policy earns zero on average, and the best one what it may cost.
    assert result["cost_mean"][0] <= 1.1 * limit
    assert result["return_mean"] >= 0.75 * limit


def test_the_best_action_of_a_memoryless_policy_earns_nothing():
    env, rng, returns = gymnasium.wrappers.TimeLimit(CueEnv(), HORIZON), np.random.default_rng(0), []
    for seed in range(400):
        obs, over, total, actions = env.reset(seed=seed)[0], False, 0.0, rng.normal(1.0, 0.1, HORIZON)
        for step in range(HORIZON):
            assert (obs[0] == 0.0) == (step > 0)
            obs, reward, _, over, info = env.step(actions[step : step + 1])
            assert abs(reward) == info["cost"]
            total += reward
        assert over
        returns.append(total / (HORIZON - 1))
    assert abs(np.mean(returns)) < 4 / np.sqrt(len(returns))


@pytest.mark.parametrize("name", ABLE)
def test_training_moves_the_recurrent_units(name, tmp_path):
    config = recurrent_config(name, cost_limit=(2.0,) if algorithms()[name].constrained else (float("inf"),))
    folder = run(config, out=tmp_path, show_progress=False, cores=1).folder
    trained, fresh = load_policy(folder / "checkpoints" / "last.pt"), build_policy(config)[0]
    assert isinstance(trained.actor, RecurrentActor)
    assert trained.actor.bptt_steps == 7
    for part in ("actor", "critic"):
        weight = f"{part}.features.gru.weight_hh_l0"
        assert trained.state_dict()[weight].shape == (24, 8)
        assert not torch.equal(trained.state_dict()[weight], fresh.state_dict()[weight])


@pytest.mark.parametrize("name", ["ppo_lag", "cpo"])
def test_a_run_is_resumed_bit_for_bit(name, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", float("inf"))
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    # Collects of 52 steps end in the middle of the episodes of four environments.
    config = resumable_config(name, TASK, network="gru", gru_size=8, bptt_steps=7, repeat_per_collect=2)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False, cores=1)
    cut = run_killed(config, 500, tmp_path, cores=1)
    assert resume_run(cut, show_progress=False, cores=1).status == "finished"
    assert_same_run(whole.folder, cut)


def test_playing_by_hand_is_what_evaluations_play(finished):
    evaluation = evaluate(finished, episodes=4)
    again = evaluate(finished, episodes=4)
    assert (evaluation.returns == again.returns).all()
    policy = load_policy(finished)
    env = gymnasium.wrappers.TimeLimit(CueEnv(), HORIZON)
    played = [_play(policy, env, seed, lambda: None) for seed in evaluation.seeds]
    np.testing.assert_allclose([x["return"] for x in played], evaluation.returns, atol=1e-5)
    act, returns = EpisodeActor(policy), []
    for seed in evaluation.seeds:
        act.reset()
        obs, total, over = env.reset(seed=seed)[0], 0.0, False
        while not over:
            obs, reward, _, over, _ = env.step(act(obs))
            total += reward
        returns.append(total)
    np.testing.assert_allclose(returns, evaluation.returns, atol=1e-5)


def test_certifying_a_recurrent_policy(finished):
    assert certify(finished, cost_limit=19.0, max_episodes=50).verdict == "within"


def test_what_sees_one_observation_alone_refuses(finished, tmp_path, capsys):
    with pytest.raises(ValueError, match="policy must act on one observation at a time, got PPOLagPolicy"):
        export_policy(finished, tmp_path / "policy.pt", format="torchscript")
    with pytest.raises(ValueError, match=r"diagnose needs a policy that acts on one observation at a time"):
        diagnose(finished, episodes=2)
    assert not list(tmp_path.iterdir())
    line = ["export", str(finished), "--format", "torchscript", "--out", str(tmp_path / "policy.pt")]
    assert main(line) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", OFFPOLICY_NAMES)
def test_off_policy_algorithms_refuse_before_anything_is_written(name, tmp_path, capsys):
    assert main(["train", name, TASK, "--network", "gru", "--out", str(tmp_path)]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    words = f"network must be 'mlp' or 'cnn' for {name}, got 'gru'; recurrent networks are for cpo, "
    assert words in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["ppo_lag", "ToyPicture-v0", "--network", "gru"], "network must be 'cnn' for ToyPicture-v0"),
        (["meta_cpo", "MetaAim", "--network", "gru"], "--network"),
        (["cpo", TASK, "--gru-size", "8"], "gru_size must be 64 with network='mlp', which does not use it"),
        (["cpo", TASK, "--network", "gru", "--bptt-steps", "0"], "bptt_steps must be"),
        (["cpo", TASK, "--network", "gru", "--actor", "m:make"], "actor must be none with network='gru'"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_written(line, words, tmp_path, capsys):
    assert main(["train", *line, "--cost-limit", "2", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert not list(tmp_path.iterdir())


def test_without_memory_digest_and_files_are_the_former_ones():
    config = small_config("cpo")
    data = config.as_dict()
    assert (data["training"].pop("gru_size"), data["training"].pop("bptt_steps")) == (64, 32)
    assert ExperimentConfig.from_dict(data) == config
    assert recurrent_config("cpo").digest() != recurrent_config("cpo", gru_size=9).digest()
