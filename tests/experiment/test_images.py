"""Tasks whose observations are images: training, resuming, playing, drawing, writing, refusing."""

import dataclasses
import json

import gymnasium
import numpy as np
import pytest
import torch
from toys.envs import PictureEnv
from toys.networks import PictureNet, make_picture_net
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import OFFPOLICY_NAMES, small_config
from toys.tasks import LEVELS

from fsrl_ext.cli import main
from fsrl_ext.data import CostVectorReplayBuffer
from fsrl_ext.env import check_env, make, register_family
from fsrl_ext.experiment import (
    evaluate,
    export_policy,
    load_policy,
    make_config,
    register_algorithm,
    registry,
    run,
)
from fsrl_ext.experiment import resume as resume_run
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.files.sizes import check_spec
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.build import build_policy
from fsrl_ext.net import ImageFeatures, SharedFeatureCritic

TASK = "ToyPicture-v0"
FEW = {"steps": 240, "step_per_collect": 80, "selections": 1, "selection_episodes": 2, "final_episodes": 2}
SINGLE = [name for name, row in algorithms().items() if "network" in row.training.__dataclass_fields__]


def images_config(name, task=TASK, **settings):
    """Return the config of a small run on images, whose buffer holds few of them."""
    if name in OFFPOLICY_NAMES:
        settings = {"buffer_size": 1200, "collect_ahead": False, **settings}
    return small_config(name, task, **{"network": "cnn", **settings})


def train(name, out, **settings):
    return run(images_config(name, **{**FEW, **settings}), out=out, show_progress=False, cores=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folders of finished runs by algorithm."""
    out = tmp_path_factory.mktemp("runs")
    return {name: train(name, out).folder for name in ("cvpo", "sac_lag", "ppo_lag", "cpo")}


@pytest.fixture(scope="module")
def cvpo(finished):
    return str(finished["cvpo"])


@pytest.mark.parametrize("name", ["cvpo", "sac_lag", "ppo_lag", "cpo"])
def test_training_moves_the_convolutions_and_no_normaliser_sees_pixels(name, finished):
    policy = load_policy(finished[name] / "checkpoints" / "last.pt")
    fresh = build_policy(images_config(name, **FEW))[0].state_dict()
    for part in ("actor", "critic"):
        first = f"{part}.features.network.0.weight"
        assert not torch.equal(policy.state_dict()[first], fresh[first]), part
    if name in OFFPOLICY_NAMES:
        assert policy.data.units()["shift"] is None
    else:
        assert policy.normaliser is None
    spec = json.loads((finished[name] / "config.json").read_text())["training"]
    assert spec["network"] == "cnn"


@pytest.mark.parametrize("name", ["cvpo", "ppo_lag"])
def test_pixels_stay_uint8_in_the_buffer(name, tmp_path, monkeypatch):
    seen = []
    sample = CostVectorReplayBuffer.sample

    def spy(self, size):
        seen.append((self.obs.dtype, self.obs_next.dtype, self.obs.shape[1:]))
        return sample(self, size)

    monkeypatch.setattr(CostVectorReplayBuffer, "sample", spy)
    train(name, tmp_path, steps=80)
    assert set(seen) == {(np.dtype("uint8"), np.dtype("uint8"), (40, 40, 3))}


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("task", [TASK, "ToyPictureFirst-v0"])
def test_every_algorithm_for_a_single_task_sees_images(name, task):
    policy, spec = build_policy(images_config(name, task))
    assert isinstance(policy.critic, SharedFeatureCritic)
    assert isinstance(policy.actor.features, ImageFeatures)
    assert policy.compute_action(np.zeros(spec.image_shape, np.uint8)).shape == (1,)


def test_discrete_actions_go_with_images():
    gymnasium.register("PictureChoice-v0", lambda: Choice(make(TASK)), max_episode_steps=20)
    for name in ("cvpo", "ppo_lag"):
        policy, spec = build_policy(images_config(name, "PictureChoice-v0"))
        assert policy.compute_action(np.zeros(spec.image_shape, np.uint8)) in (0, 1)


class Choice(gymnasium.ActionWrapper):
    """Chooses between the two ends of the action box."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gymnasium.spaces.Discrete(2)

    def action(self, action):
        return np.array([2.0 * action - 1.0], np.float32)


@pytest.mark.parametrize("network", [make_picture_net, PictureNet])
def test_networks_of_a_user_replace_the_convolutions(network, tmp_path):
    done = train("ppo_lag", tmp_path, actor=network, critic=network, steps=80)
    policy = load_policy(done.folder)
    assert not [x for x in policy.modules() if isinstance(x, torch.nn.LayerNorm)]
    assert policy.critic.critic.num_nets == 2  # the hidden layers follow in the critic


def test_evaluating_drawing_and_diagnosing(cvpo, tmp_path, capsys):
    first, again = (evaluate(cvpo, episodes=2) for _ in range(2))
    assert (first.returns == again.returns).all()
    film = tmp_path / "film.gif"
    assert main(["evaluate", cvpo, "--episodes", "2", "--quiet", "--video", str(film)]) == 0
    assert film.stat().st_size > 1000
    assert main(["diagnose", cvpo, "--episodes", "2"]) == 0
    with pytest.raises(ValueError, match=r"as in training: ToyPictureFirst-v0 has \[3, 40, 40\] and \[1\]"):
        evaluate(cvpo, task="ToyPictureFirst-v0", episodes=2)
    capsys.readouterr()


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_a_file_maps_images_to_the_policy_s_actions(format, cvpo, tmp_path, capsys):
    exported = export_policy(cvpo, tmp_path / "policy", format=format)
    assert exported.difference <= 1e-5
    assert exported.metadata["image_shape"] == [40, 40, 3]
    if format == "torchscript":
        assert main(["export", cvpo, "--format", format, "--out", str(tmp_path / "again")]) == 0
        assert "from observations [B, 40, 40, 3] to actions [B, 1]" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sac_lag", "ppo_lag"])
def test_a_run_is_resumed_bit_for_bit(name, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", float("inf"))
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    few = {"steps": 240, "step_per_collect": 80, "selections": 2}
    if name in OFFPOLICY_NAMES:
        few |= {"buffer_size": 1200, "collect_ahead": False}
    config = resumable_config(name, TASK, network="cnn", **few)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False, cores=1)
    cut = run_killed(config, 160, tmp_path, cores=1)
    assert resume_run(cut, show_progress=False, cores=1).status == "finished"
    assert_same_run(whole.folder, cut)


REFUSED = (
    (
        "cvpo",
        TASK,
        "mlp",
        "network must be 'cnn' for ToyPicture-v0, whose observations are images [40, 40, 3]",
    ),
    (
        "ppo_lag",
        "ToyLine-v0",
        "cnn",
        "network must be 'mlp' for ToyLine-v0, whose observations are vectors of",
    ),
    ("sac_lag", "ToySmallPicture-v0", "cnn", "height and width must be >= 36 for the convolutions, got 32"),
    ("cpo", TASK, "rnn", "network must be one of mlp, cnn, gru, got 'rnn'"),
)


@pytest.mark.parametrize(("name", "task", "network", "words"), REFUSED)
def test_what_does_not_fit_is_one_line_before_anything_is_written(
    name, task, network, words, tmp_path, capsys
):
    line = ["train", name, task, "--network", network, "--cost-limit", "2", "--out", str(tmp_path)]
    assert main(line) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_algorithm_that_sees_vectors_alone_is_refused():
    def build_for_vectors(spec, training, *, num_costs, device):
        vectors = TaskSpec.from_dict({**spec.as_dict(), "image_shape": None})
        return row.networks(vectors, training, num_costs=num_costs, device=device)

    row = algorithms()["ddpg_lag"]
    register_algorithm("blind", dataclasses.replace(row, networks=build_for_vectors))
    try:
        config = make_config("blind", TASK, network="cnn", cost_limit=2.0)
        with pytest.raises(ValueError, match=r"blind cannot train ToyPicture-v0, .*: its actor does not see"):
            build_policy(config)
    finally:
        del registry._algorithms["blind"]


def test_a_meta_learner_has_no_network_for_images():
    register_family(
        "MetaPicture", lambda parameters: PictureEnv(), LEVELS, can_terminate=False, max_episode_steps=10
    )
    with pytest.raises(
        ValueError,
        match=r"meta_cpo cannot train MetaPicture, .* images \[40, 40, 3\]; images are for cvpo, sac",
    ):
        build_policy(small_config("meta_cpo", "MetaPicture"))
    with pytest.raises(ValueError, match="unknown setting 'network'"):
        make_config("meta_cpo", "MetaAim", network="cnn")


def test_without_images_digest_and_files_are_the_former_ones():
    config = small_config("cpo")
    data = config.as_dict()
    assert data["training"].pop("network") == "mlp"
    assert ExperimentConfig.from_dict(data) == config
    assert ExperimentConfig.from_dict(data).digest() == config.digest()
    assert images_config("cpo").digest() != config.digest()
    assert "image_shape" not in build_policy(config)[1].as_dict()


def test_a_checkpoint_whose_image_has_other_pixels_is_refused():
    spec = build_policy(images_config("cvpo"))[1]
    assert TaskSpec.from_dict(spec.as_dict()) == spec
    wrong = TaskSpec.from_dict({**spec.as_dict(), "image_shape": [40, 40, 4]})
    with pytest.raises(ValueError, match=r"spec\.image_shape must have three numbers"):
        check_spec(wrong, {})


def test_the_checker_knows_images():
    findings = check_env(TASK, workers=False)
    assert {x.status for x in findings} == {"ok"}
    assert "images [40, 40, 3], for --network cnn" in {x.message for x in findings}
