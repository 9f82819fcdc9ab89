"""Exported files act as the policy does in an evaluation, and docs/export.md runs without the package."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tianshou.data import Batch
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ActorProb
from torch import nn
from toys.policies import build
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.experiment import export_policy, load_policy
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.saved import export
from fsrl_ext.experiment.saved.traceable import TraceablePolicy, plain_actor
from fsrl_ext.experiment.task import TaskSpec, TeamShape
from fsrl_ext.experiment.training.build import fresh_policy
from fsrl_ext.experiment.training.checkpoint import save_checkpoint
from fsrl_ext.net import DeterministicActor, GaussianActor

# PyTorch calls its older formats deprecated at each use of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
SAVED_RUN = Path(__file__).parents[1] / "saved_runs" / "cpo_finished_0.1.0"
FORMATS = ("onnx", "torchscript")
# A box that lies beside zero in one dimension; sizes of observations from 1e-3 to 1e4.
SPEC = TaskSpec(obs_dim=4, action_low=(-2.0, 0.5), action_high=(1.0, 0.75), max_episode_steps=20)
MEAN, SIZE = np.array([0.0, 1e4, -30.0, 0.0]), np.array([1.0, 1e3, 1e-3, 1e-3])
TEAM = TaskSpec(
    obs_dim=7,  # two agents' three and two numbers, and whether each is there
    action_low=(-1.0,) * 3,
    action_high=(1.0,) * 3,
    max_episode_steps=20,
    team=TeamShape(names=("a", "b"), obs_dims=(2, 3), act_dims=(2, 1)),
)

CASES = [
    *[(name, {}, SPEC) for name in algorithms()],
    ("cvpo", {"covariance": "full"}, SPEC),
    ("cvpo", {"average_tau": 0.1}, SPEC),
    ("cvpo", {"mean_range": 2.0}, SPEC),
    ("cvpo", {"normalise_observations": False}, SPEC),
    ("ppo_lag", {"normalise_observations": False}, SPEC),
    ("td3_lag", {"hidden_sizes": (600, 600)}, SPEC),
    *[(name, {}, dataclasses.replace(SPEC, action_dtype=x)) for name in ("sac_lag", "cpo") for x in
      ("float64", "float16")],
    *[(name, {"agents": x, **more}, TEAM) for x in ("shared", "independent") for name, more in
      (("cvpo", {"covariance": "full"}), ("sac_lag", {}), ("td3_lag", {}), ("ppo_lag", {}))],
]  # fmt: skip


def observations(spec, rows, spread=1.0, *, seed, unit):
    """Return random observations, of unit size or of the sizes above."""
    mean, size = (0.0, 1.0) if unit else (MEAN, SIZE)
    draws = np.random.default_rng(seed).standard_normal((rows, spec.obs_dim))
    return (mean + spread * size * draws).astype(np.float32)


def is_unit(spec, settings):
    return spec.team is not None or settings.get("normalise_observations") is False


def save(path, name, spec=SPEC, **settings):
    """Save a policy with large random weights, whose actions fill the box, and measured statistics."""
    config = small_config(name, **settings)
    torch.manual_seed(0)
    policy = fresh_policy(config, spec)
    with torch.no_grad():
        for actor in (policy.actor, getattr(policy, "average_actor", None)):
            for parameter in () if actor is None else actor.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    seen = observations(spec, 500, seed=1, unit=is_unit(spec, settings))
    if getattr(policy, "normaliser", None) is not None:
        policy.normaliser.update(torch.as_tensor(seen))
    elif hasattr(policy, "data") and policy.data.normalise_observations:
        policy.data._measure_observations(seen)
    counters = {"env_step": 1200, "gradient_step": 0, "episode": 0}
    save_checkpoint(path, policy, config=config, spec=spec, counters=counters)
    return path


def act_with(path, obs):
    """Return the actions of an exported file, by the means that it is made for."""
    if path.suffix == ".onnx":
        return onnxruntime.InferenceSession(path).run(None, {"obs": obs})[0]
    return torch.jit.load(path)(torch.from_numpy(obs)).numpy()


def expected_actions(policy, obs):
    """Return what a collector sends to the environment, one observation at a time."""
    acts = [policy.map_action(policy(Batch(obs=x[None], info=Batch())).act.detach().numpy()) for x in obs]
    return np.concatenate(acts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("saved") / "mine.pt", "cvpo")


def label(case):
    name, settings, spec = case
    return "-".join([name, *(f"{k}={v}" for k, v in settings.items()), spec.action_dtype])


@pytest.mark.parametrize(("name", "settings", "spec"), CASES, ids=map(label, CASES))
def test_every_policy_acts_as_before(tmp_path, name, settings, spec):
    source = save(tmp_path / "policy.pt", name, spec, **settings)
    policy = load_policy(source)
    for form in FORMATS:
        exported = export_policy(source, tmp_path / f"policy.{form}", format=form)
        tolerance = max(1e-5, np.finfo(spec.action_dtype).eps)
        assert exported.difference <= tolerance
        for rows, spread in ((1, 1.0), (200, 1.0), (200, 100.0)):
            if is_unit(spec, settings) and spread > 1:
                continue  # not normalised: float32 cannot hold 1e-5 behind sums of 1e3
            obs = observations(spec, rows, spread, seed=2, unit=is_unit(spec, settings))
            actions, expected = act_with(exported.path, obs), expected_actions(policy, obs)
            assert actions.dtype == spec.action_dtype
            assert actions.shape == (rows, spec.act_dim)
            np.testing.assert_allclose(actions, expected, rtol=0, atol=tolerance)
            assert (actions >= np.asarray(spec.action_low, spec.action_dtype)).all()
            assert (actions <= np.asarray(spec.action_high, spec.action_dtype)).all()
            if (rows, spread) == (200, 1.0):
                assert expected.std(0).min() > 1e-3  # the policy does look at its observations


def test_an_actor_of_tianshou_is_followed():
    net = Net(state_shape=2, hidden_sizes=[8], device="cpu")
    actor = ActorProb(net, (1,), unbounded=True, conditioned_sigma=True)
    policy = build("sac", actor=actor).eval()
    assert plain_actor(actor) is None
    obs = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    with export._refusing("refused"):
        content = export._onnx(TraceablePolicy(policy), torch.zeros(1, 2), {"output": "action"})
    actions = export._read_onnx(content)(obs)
    np.testing.assert_allclose(actions, expected_actions(policy, obs), rtol=0, atol=1e-5)


def test_a_subclass_of_an_actor_is_not_taken_for_its_base():
    class Reversed(DeterministicActor):
        def forward(self, obs, state=None, info=None):
            return -super().forward(obs)[0], state

    assert plain_actor(Reversed(2, 1)) is None


def test_the_policy_itself_stays_as_it_is():
    policy = build("cvpo").eval()
    TraceablePolicy(policy)
    assert isinstance(policy.actor, GaussianActor)
    assert all(x.requires_grad for x in policy.actor.parameters())


# --- the command ---


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_says_what_it_wrote_and_how_it_differs(saved, tmp_path, monkeypatch, capsys, form):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(saved), "--format", form]) == 0
    out = capsys.readouterr().out
    assert f"mine.{form}: cvpo of ToyLine-v0 after 1,200 steps" in out
    assert "observations [B, 4] to actions [B, 2]" in out
    assert float(re.search(r"195 random observations: (\S+) \(allowed: 1e-05\)", out)[1]) <= 1e-5
    assert [x.name for x in tmp_path.iterdir()] == [f"mine.{form}"]


def test_default_names_and_the_metadata_of_both_formats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "zoo:cvpo-ball-circle", "--format", "onnx"]) == 0
    assert main(["export", "zoo:cvpo-ball-circle", "--format", "torchscript"]) == 0
    session = onnxruntime.InferenceSession("cvpo-ball-circle.onnx")
    texts = session.get_modelmeta().custom_metadata_map
    assert (texts["task"], texts["policy"]) == ("SafetyBallCircle-v0", "cvpo")
    extra = {export.METADATA_FILE: ""}
    torch.jit.load("cvpo-ball-circle.torchscript", _extra_files=extra)
    data = json.loads(extra[export.METADATA_FILE])
    assert data["cost_limit"] == [10.0] == json.loads(texts["cost_limit"])
    assert data["action_low"] == [-1.0, -1.0] == json.loads(texts["action_low"])
    assert data["env_step"] == 40_000 == json.loads(texts["env_step"])


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_run_folder_gives_its_best_and_its_last_policy(tmp_path, monkeypatch, which):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(SAVED_RUN), "--format", "torchscript", "--checkpoint", which]) == 0
    policy = load_policy(SAVED_RUN / "checkpoints" / f"{which}.pt")
    obs = np.random.default_rng(0).standard_normal((50, policy.normaliser.mean.numel())).astype(np.float32)
    actions = act_with(Path("cpo_finished_0.1.0.torchscript"), obs)
    np.testing.assert_allclose(actions, expected_actions(policy, obs), rtol=0, atol=1e-5)


def test_names_of_costs_and_no_limit_are_in_the_metadata():
    config = dataclasses.replace(small_config("cvpo", cost_limit=(1.0, 2.0)), costs=("hazards", "vases"))
    assert export._metadata(config, SPEC, 0)["cost_names"] == ["hazards", "vases"]
    assert export._metadata(small_config("sac"), SPEC, 0)["cost_limit"] == ["Infinity"]


def refused(capsys, *arguments):
    """Return the one line that a command ends with."""
    try:
        code = main(["export", *map(str, arguments)])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    return err


def test_what_cannot_be_exported_is_one_line(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no checkpoint at nowhere" in refused(capsys, "nowhere", "--format", "onnx")
    assert "--format" in refused(capsys, saved)
    assert "invalid choice: 'h5'" in refused(capsys, saved, "--format", "h5")
    assert "the nearest names are" in refused(capsys, "zoo:cvpo-bal-circle", "--format", "onnx")
    assert "there is no folder" in refused(capsys, saved, "--format", "onnx", "--out", "no/such.onnx")
    assert "exists already" in refused(capsys, saved, "--format", "onnx", "--out", saved)
    samples = save(tmp_path / "samples.pt", "cvpo", deterministic_eval=False)
    assert "actions must be deterministic" in refused(capsys, samples, "--format", "torchscript")
    assert [x.name for x in tmp_path.iterdir()] == ["samples.pt"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_acts_otherwise_is_not_written(saved, tmp_path, monkeypatch, capsys, form):
    read = export._READERS[form]
    monkeypatch.setitem(export._READERS, form, lambda content: lambda obs: read(content)(obs) + 2e-5)
    out = tmp_path / "policy"
    assert "must be within 1e-05" in refused(capsys, saved, "--format", form, "--out", out)
    assert not list(tmp_path.iterdir())


def test_a_trace_that_depends_on_the_batch_is_not_written(saved, tmp_path, monkeypatch):
    class OfTwo(nn.Module):
        def forward(self, obs):
            return obs[:, :2] * torch.ones(len(obs), 1)

    monkeypatch.setattr(export, "TraceablePolicy", lambda policy: OfTwo())
    with pytest.raises(ValueError, match="this cvpo policy cannot be written as torchscript: "):
        export_policy(saved, tmp_path / "policy", format="torchscript")
    assert not list(tmp_path.iterdir())


def test_nan_and_memory_are_refused(saved, tmp_path, monkeypatch):
    policy = build("cvpo").eval()
    with torch.no_grad():
        policy.actor.head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="actions must be finite, got NaN from CVPOPolicy"):
        export._expected(policy, [np.zeros((1, 2), np.float32)])
    monkeypatch.setattr(type(policy), "_act", lambda self, obs, state, explore: (torch.zeros(1, 1), obs))
    with pytest.raises(ValueError, match="one observation at a time, got CVPOPolicy, which is recurrent"):
        export._expected(policy, [np.zeros((1, 2), np.float32)])


def test_missing_packages_are_named(saved, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "onnxruntime" else find(name, *more)
    )
    err = refused(capsys, saved, "--format", "onnx", "--out", tmp_path / "a")
    assert "needs onnxruntime, which is not installed: pip install 'fsrl_ext[export]'" in err
    export_policy(saved, tmp_path / "b", format="torchscript")


# --- docs/export.md ---

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_page_acts_without_the_package(tmp_path, monkeypatch):
    text = PAGE.read_text()
    monkeypatch.chdir(tmp_path)
    commands = re.search(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1].splitlines()
    for line in commands:
        assert main(line.split("#")[0].split()[1:]) == 0
    programs = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(programs) == 3  # the last one draws discrete actions (test_discrete.py)
    for program in programs[:2]:
        assert len([line for line in program.splitlines() if line]) == 3
        code = (
            "import sys; sys.modules['fsrl_ext'] = sys.modules['tianshou'] = None\n"
            "import numpy as np; obs = np.zeros((3, 8), np.float32)\n" + program + "\nprint(action.shape)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=dict(os.environ),
            text=True,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout.split()[-2:]) == (0, ["(3,", "2)"]), done.stderr
