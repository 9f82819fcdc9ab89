"""What version 0.1.0 saved: two small runs of it still load and are judged as they were."""

import json
from pathlib import Path

import numpy as np
import pytest

from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment import ExperimentConfig, evaluate, load_policy, resume
from fsrl_ext.experiment.algorithms.onpolicy import OnpolicyTraining
from fsrl_ext.experiment.former import from_saved
from fsrl_ext.policy import CVPOConfig

RUNS = Path(__file__).parent / "data" / "v0_1_0"


@pytest.mark.parametrize("name", ["sac", "maml_lag"])
def test_a_run_folder_loads_and_is_judged_as_it_was(name):
    result = json.loads((RUNS / name / "result.json").read_text())
    config = ExperimentConfig.from_dict(result["config"])
    assert (config.policy, config.training.num_envs) == (name, 4)
    assert load_policy(RUNS / name).compute_action(np.zeros(2, np.float32)).shape == (1,)
    expected = next(x for x in result["selections"] if x["env_step"] == result["env_step"])
    judged = evaluate(RUNS / name, checkpoint="last", episodes=expected["episodes"], seed=1_000_000)
    summary = judged.summary()
    assert {name: summary[name] for name in expected} == expected
    assert set(summary) - set(expected) == {"other_cost_mean"}


def test_an_unused_setting_had_its_default():
    saved = json.loads((RUNS / "maml_lag" / "config.json").read_text())["training"]
    saved = {**saved, "batch_size": 64, "repeat_per_collect": 5}  # which CPO uses
    training = from_saved(OnpolicyTraining, saved)
    assert (training.batch_size, training.hidden_sizes) == (64, (4,))
    with pytest.raises(ValueError, match=r"actor_lr must be 0\.0005 for OnpolicyTraining, which has no such"):
        from_saved(OnpolicyTraining, {**saved, "actor_lr": 1.0})
    with pytest.raises(ValueError, match="OnpolicyTraining has no setting forgotten, got 1"):
        from_saved(OnpolicyTraining, {**saved, "forgotten": 1})


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ((10, 4, "shmem"), (4, 4, "process")),
        ((10, 4, "subproc"), (4, 4, "process")),
        ((10, 0, "shmem"), (10, 0, "process")),
        ((10, 4, "ray"), (10, 4, "ray")),
        ((10, 0, "ray"), (10, 0, "process")),
        ((10, 4, "process"), (10, 4, "process")),
        ((10, "auto", "ray"), (10, "auto", "ray")),
    ],
)
def test_workers_were_environments_and_are_processes(saved, expected):
    names = ("num_envs", "workers", "worker_type")
    training = from_saved(OnpolicyTraining, dict(zip(names, saved, strict=True)))
    assert tuple(getattr(training, name) for name in names) == expected


def test_one_number_for_mean_and_covariance_is_for_both():
    config = from_saved(CVPOConfig, {"kl_multiplier_lr": 0.1, "kl_multiplier_max": 7.0, "gamma": 0.9})
    assert (config.kl_multiplier_lr, config.kl_multiplier_max) == ((0.1, 0.1), (7.0, 7.0))


def test_a_snapshot_is_refused_with_the_version_that_can_resume_it():
    folder = RUNS / "maml_lag"
    before = sorted((x, x.stat().st_mtime) for x in folder.rglob("*"))
    with pytest.raises(CheckpointError) as info:
        resume(folder, show_progress=False)
    message = str(info.value)
    assert message.startswith(f"{folder / 'checkpoints' / 'resume.pt'} was written by fsrl_ext 0.1.0 in")
    assert message.endswith("; fsrl_ext 0.1.0 can resume it")
    assert len(message.splitlines()) == 1
    assert before == sorted((x, x.stat().st_mtime) for x in folder.rglob("*"))
