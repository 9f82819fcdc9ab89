"""Whole runs on an accelerator; skipped where there is none."""

import math

import pytest
import torch
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import META_NAMES

from fsrl_ext.experiment import adapt, evaluate, load_policy, resume, run
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.training import snapshot

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("name", list(algorithms()))
def test_every_policy_trains_there_and_acts_on_the_cpu(name, tmp_path):
    done = run(resumable_config(name, device="cuda"), out=tmp_path, show_progress=False)
    assert math.isfinite(done.result["last"]["return_mean"])
    for device in ("cuda", "cpu"):
        actor = load_policy(done.folder, device=device).actor
        assert {x.device.type for x in actor.parameters()} == {device}
    if name in META_NAMES:
        assert len(adapt(done.folder, "MetaAim2-v0", steps=1, episodes=2, device="cuda").points) == 2
    found = [evaluate(done.folder, episodes=2, seed=0, device=x).summary() for x in ("cuda", "cpu")]
    assert found[0]["return_mean"] == pytest.approx(found[1]["return_mean"], rel=1e-3)


@pytest.mark.parametrize("name", ["cvpo", "td3_lag", "cpo", "ppo_lag", "meta_cpo"])
def test_a_run_goes_on_there_as_if_nothing_had_happened(name, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", math.inf)
    config = resumable_config(name, device="cuda")
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False)
    folder = run_killed(config, 800, tmp_path)
    assert resume(folder, show_progress=False).result["resumed"][0]["exact"]
    assert_same_run(whole.folder, folder)
