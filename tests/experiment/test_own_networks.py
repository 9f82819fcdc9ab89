"""Networks of a user's own, by import path and by object: training, resuming, playing, writing, refusing."""

import dataclasses
import functools
import json
import os
import shlex
import subprocess
import sys

import pytest
import torch
from toys import networks
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import META_NAMES, OFFPOLICY_NAMES, small_config

from fsrl_ext.cli import main
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment import (
    evaluate,
    export_policy,
    load_policy,
    make_config,
    network_path,
    register_algorithm,
    registry,
    resume,
    run,
)
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.saved.traceable import TraceablePolicy
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.build import build_policy
from fsrl_ext.net import FeatureActor, FeatureCritic, FeatureValueCritic

ACTOR, CRITIC = "toys.networks:make_net", "toys.networks:make_features"
SHORT = {"steps": 320, "step_per_collect": 80, "selections": 1, "selection_episodes": 2, "final_episodes": 2}
LINE = ["train", "ddpg_lag", "ToyLine-v0", "--quiet", "--cost-limit", "2"]


@pytest.fixture(autouse=True)
def _nothing_was_used(monkeypatch):
    monkeypatch.setattr(network_path, "_used", set())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with both networks."""
    config = small_config("ddpg_lag", actor=ACTOR, critic=CRITIC, **SHORT)
    return run(config, out=tmp_path_factory.mktemp("runs"), run_name="own", show_progress=False).folder


@pytest.mark.parametrize("name", list(algorithms()))
def test_every_algorithm_learns_with_networks_of_a_user(name):
    config = small_config(name, actor=ACTOR, critic=CRITIC)
    policy, _ = build_policy(config)
    assert isinstance(policy.actor, FeatureActor)
    kind = FeatureCritic if name in OFFPOLICY_NAMES else FeatureValueCritic
    assert isinstance(policy.critic, kind)


@pytest.mark.parametrize("name", ["cvpo", "sac_lag", "cpo", "ppo_lag", "meta_cpo"])
def test_training_moves_networks_of_a_user(name, tmp_path):
    few = {"selections": 1, "selection_episodes": 2, "final_episodes": 2}
    few["steps"] = 320 if name in META_NAMES else 160
    config = small_config(name, actor=networks.make_features, critic=networks.Residual, **few)
    fresh = build_policy(config)[0].state_dict()
    done = run(config, out=tmp_path, show_progress=False)
    assert done.status == "finished"
    policy = load_policy(done.folder / "checkpoints" / "last.pt")
    for part in ("actor.features.network", "critic.networks.0.0.network"):
        moved = [
            k for k, x in policy.state_dict().items() if k.startswith(part) and not torch.equal(x, fresh[k])
        ]
        assert moved, part


def test_a_full_covariance_and_lbfgs_work_on_features():
    build_policy(small_config("cvpo", actor=ACTOR, covariance="full"))
    build_policy(small_config("cpo", critic=CRITIC, critic_optimiser="lbfgs"))


def test_the_path_is_written_and_a_function_is_its_path(finished):
    written = json.loads((finished / "config.json").read_text())
    assert (written["training"]["actor"], written["training"]["critic"]) == (ACTOR, CRITIC)
    by_object = small_config("ddpg_lag", actor=networks.make_net, critic=networks.make_features, **SHORT)
    assert by_object == small_config("ddpg_lag", actor=ACTOR, critic=CRITIC, **SHORT)
    assert ExperimentConfig.from_dict(by_object.as_dict()) == by_object


def test_without_networks_of_a_user_the_digest_is_the_former_one():
    config = small_config("ddpg_lag")
    data = config.as_dict()
    assert (data["training"].pop("actor"), data["training"].pop("critic")) == (None, None)
    assert ExperimentConfig.from_dict(data).digest() == config.digest()
    assert small_config("ddpg_lag", actor=ACTOR).digest() != config.digest()


def test_a_run_is_resumed_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", float("inf"))
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    config = resumable_config("ddpg_lag", actor=ACTOR, critic=CRITIC)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    cut = run_killed(config, 500, tmp_path)
    assert resume(cut, show_progress=False).status == "finished"
    assert_same_run(whole.folder, cut)


def test_a_saved_network_is_built_with_permission_alone(finished, tmp_path):
    network_path._used.clear()
    for use in (
        lambda **allowed: load_policy(finished, **allowed),
        lambda **allowed: evaluate(finished, episodes=2, **allowed),
        lambda **allowed: export_policy(finished, tmp_path / "p.pt", format="torchscript", **allowed),
    ):
        with pytest.raises(CheckpointError, match=f"names the actor '{ACTOR}', whose code would run"):
            use()
        use(allow_import=True)
        network_path._used.clear()


def test_what_this_process_has_trained_with_needs_no_permission(tmp_path):
    config = small_config("ddpg_lag", actor=ACTOR, **SHORT)
    done = run(config, out=tmp_path, show_progress=False)
    policy = load_policy(done.folder)
    obs = torch.zeros(1, policy.actor.features.network.model.model[0].in_features)
    assert policy.actor(obs)[0].shape == (1, 1)


@pytest.mark.parametrize("name", ["ddpg_lag", "cvpo", "cpo"])
def test_a_policy_with_own_networks_is_written_for_use_elsewhere(name, tmp_path):
    done = run(small_config(name, actor=ACTOR, critic=CRITIC, **SHORT), out=tmp_path, show_progress=False)
    exported = export_policy(done.folder, tmp_path / "policy.pt", format="torchscript")
    assert exported.difference <= 1e-5


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("make_net", "actor must be an import path such as my_pkg.nets:make_actor, got 'make_net'"),
        ("no_such_module:make", "actor 'no_such_module:make' cannot be imported: ModuleNotFoundError"),
        ("toys.networks:make_nat", "toys.networks has no make_nat; did you mean make_net?"),
        ("toys.networks:NOT_A_FUNCTION", "actor must be the path of a function that returns a network, got"),
        ("toys.networks:make_number", "actor must be a torch.nn.Module, got 2"),
        ("toys.networks:make_narrow", "actor must take float32 inputs [2, 2], got RuntimeError"),
        ("toys.networks:make_flat", "actor must return features [2, F] for 2 rows of inputs, got"),
        ("toys.networks:make_nothing", "toys.networks:make_nothing raised KeyError: 'sizes'"),
    ],
)
def test_a_path_that_leads_to_no_network_is_one_line(path, words, tmp_path, capsys):
    assert main([*LINE, "--out", str(tmp_path), "--actor", path]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_critics_of_a_user_exclude_what_they_cannot_do(tmp_path, capsys):
    for options, words in (
        (["--shared-body", "true"], "shared_body must be false with a critic of your own, got true"),
        (["--critic", "toys.networks:make_same"], "critic must be a fresh network at every call"),
    ):
        assert main([*LINE, "--out", str(tmp_path), "--critic", CRITIC, *options]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(ValueError, match="estep_precision must be 'float32' with a critic of your own"):
        make_config("cvpo", "ToyLine-v0", critic=CRITIC, estep_precision="bfloat16")
    assert not list(tmp_path.iterdir())


def test_a_function_without_a_path_is_refused():
    def inside(inputs):
        return networks.make_net(inputs)

    for function in (inside, lambda inputs: networks.make_net(inputs), functools.partial(networks.make_net)):
        with pytest.raises(ValueError, match="actor must be a function or a class at the top of a module"):
            make_config("ddpg_lag", "ToyLine-v0", actor=function)


def test_an_algorithm_that_ignores_the_networks_is_refused():
    def build_its_own(spec, training, *, num_costs, device):
        return row.networks(spec, type(training)(), num_costs=num_costs, device=device)

    row = algorithms()["ddpg_lag"]
    register_algorithm("stubborn", dataclasses.replace(row, networks=build_its_own))
    try:
        with pytest.raises(ValueError, match="actor must be none for stubborn, which builds its own"):
            build_policy(make_config("stubborn", "ToyLine-v0", cost_limit=2.0, actor=ACTOR))
    finally:
        del registry._algorithms["stubborn"]


def test_agents_act_by_networks_of_a_user():
    for agents in ("shared", "independent"):
        policy, spec = build_policy(
            small_config("ppo_lag", "toys.teams:make_throttles", actor=ACTOR, agents=agents)
        )
        assert {type(x) for x in policy.actor.actors} == {FeatureActor}
        (mean, _), _ = policy.actor(torch.zeros(2, spec.obs_dim))
        assert mean.shape == (2, spec.act_dim)
        with pytest.raises(ValueError, match="an actor of your own can be written for one agent"):
            TraceablePolicy(policy)


@pytest.mark.slow
def test_the_command_line_finds_networks_in_the_current_folder(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\ndef make_actor(inputs):\n    return nn.Linear(inputs, 8)\n"
    )
    small = shlex.split("--steps 400 --num-envs 2 --selections 1 --selection-episodes 2 --final-episodes 2")
    few = shlex.split("--step-per-collect 200 --warmup-steps 0 --update-per-step 0.05 --cores 2")
    command = [sys.executable, "-m", "fsrl_ext.cli"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    train = ["train", "ddpg_lag", "toys.registered:ToyLine-v0", "--cost-limit", "2", "--run-name", "own"]
    done = subprocess.run(
        [*command, *train, "--actor", "nets:make_actor", "--quiet", *small, *few],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs" / "own" / "result.json").read_text())["cores"] == 2
