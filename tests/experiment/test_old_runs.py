"""Runs of earlier versions load, evaluate and start new runs, and one that was interrupted goes on.

``tests/saved_runs`` holds run folders as the version in their name wrote them, without TensorBoard's files
and the picture; ``config.json`` has the command. ``evaluations.json`` has what that version's ``evaluate``
said.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fsrl_ext.cli import main
from fsrl_ext.env import make
from fsrl_ext.errors import CheckpointError, RunFolderError
from fsrl_ext.experiment import evaluate, load_policy, resume

SAVED = Path(__file__).parents[1] / "saved_runs"
CVPO, CPO = "cvpo_interrupted_0.1.0", "cpo_finished_0.1.0"
EVALUATIONS = json.loads((SAVED / "evaluations.json").read_text())["evaluations"]
ACTIONS = json.loads((SAVED / "actions.json").read_text())["actions"]


def copy_of(name, tmp_path):
    """A copy of a saved run, under a name without version."""
    return Path(shutil.copytree(SAVED / name, tmp_path / "run"))


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", [CVPO, CPO])
def test_the_policy_acts(name, tmp_path):
    policy = load_policy(copy_of(name, tmp_path))
    assert policy.cost_limit == (10.0,)
    env = make("SafetyBallCircle-v0")
    obs, _ = env.reset(seed=0)
    action = policy.compute_action(obs)
    env.close()
    assert action.shape == env.action_space.shape
    assert np.isfinite(action).all()


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("name", [CVPO, CPO])
def test_actions_are_those_of_the_version_that_trained(name, checkpoint, tmp_path):
    policy = load_policy(copy_of(name, tmp_path) / "checkpoints" / f"{checkpoint}.pt")
    expected = ACTIONS[name][checkpoint]
    observations = np.array(expected["observations"], dtype=np.float32)
    # Another processor may round otherwise.
    actions = [policy.compute_action(obs) for obs in observations]
    np.testing.assert_allclose(actions, expected["actions"], atol=1e-5)


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("name", [CVPO, CPO])
def test_it_is_evaluated(name, checkpoint, tmp_path):
    # Rounding grows within an episode of this task, so returns differ between processors.
    evaluation = evaluate(copy_of(name, tmp_path), episodes=2, checkpoint=checkpoint)
    expected = EVALUATIONS[name][checkpoint]
    assert evaluation.env_step == expected["env_step"]
    assert np.shape(evaluation.returns) == np.shape(expected["returns"])
    assert np.shape(evaluation.costs) == np.shape(expected["costs"])
    assert np.isfinite(evaluation.returns).all()
    assert ((evaluation.costs >= 0) & (evaluation.costs <= 200)).all()


@pytest.mark.parametrize(("name", "policy"), [(CVPO, "cvpo"), (CPO, "cpo")])
def test_a_new_run_starts_from_it(name, policy, tmp_path):
    old = copy_of(name, tmp_path)
    start = ["train", policy, "SafetyBallCircle-v0", "--init-from", str(old), "--out", str(tmp_path)]
    small = "--run-name new --quiet --cost-limit 10 --hidden-sizes 8,8 --num-envs 2 --selection-episodes 1"
    # One collect; the off-policy one is followed by no gradient step, the on-policy one by a small one.
    small += " --steps 400 --step-per-collect 400 --final-episodes 1 --selections 1"
    small += " --update-per-step 1e-9" if policy == "cvpo" else " --kl-bound 1e-10 --entropy-weight 0"
    assert main([*start, *small.split()]) == 0
    result = json.loads((tmp_path / "new" / "result.json").read_text())
    assert result["init_from"]["env_step"] == EVALUATIONS[name]["best"]["env_step"]
    assert "critic_optim" in result["init_from"]["optimisers"]
    before, after = (
        torch.load(path, weights_only=True)["policy"]
        for path in (old / "checkpoints" / "best.pt", tmp_path / "new" / "checkpoints" / "last.pt")
    )
    actor = [key for key in before if key.startswith("actor.")]
    assert actor
    for key in actor:
        torch.testing.assert_close(after[key], before[key], rtol=0.0, atol=1e-4)


def test_an_interrupted_run_says_which_version_can_go_on_with_it(tmp_path):
    folder = copy_of(CVPO, tmp_path)
    before = contents(folder)
    with pytest.raises(CheckpointError, match=r"fsrl_ext 0\.1\.0 can resume it$") as refusal:
        resume(folder, show_progress=False)
    assert len(str(refusal.value).splitlines()) == 1
    assert contents(folder) == before


def test_a_finished_run_does_not_go_on(tmp_path):
    with pytest.raises(RunFolderError, match="has finished"):
        resume(copy_of(CPO, tmp_path), show_progress=False)
