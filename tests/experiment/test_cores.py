"""The number of cores decides where a run is computed, and nothing that it computes."""

import os
import warnings

import pytest
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.experiment import resume, run
from fsrl_ext.experiment.training import cores as cores_module
from fsrl_ext.experiment.training.cores import (
    available_cores,
    resolve_cores,
    warn_of_more_processes_than_cores,
)


def test_a_run_uses_the_cores_it_may_use_as_far_as_it_has_work(monkeypatch):
    config = small_config("sac_lag", num_envs=4)
    assert available_cores() == len(os.sched_getaffinity(0))
    for available, expected in ((1, 1), (2, 2), (64, 6)):
        monkeypatch.setattr(cores_module, "available_cores", lambda: available)  # noqa: B023 - called at once
        assert resolve_cores(None, config) == expected
    assert resolve_cores(3, config) == 3


def test_numbers_of_cores_that_cannot_be_used_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"cores must be a whole number >= 1, got 0"):
        run(small_config("sac_lag"), out=tmp_path, cores=0)
    with pytest.raises(ValueError, match=r"cores must be .*, got 'two'"):
        resume(tmp_path, cores="two")
    command = ["train", "sac_lag", "ToyLine-v0", "--cost-limit", "2", "--out", str(tmp_path), "--cores", "0"]
    assert main(command) == 2
    assert "fsrl-ext: cores must be a whole number >= 1, got 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cores", "settings", "processes"),
    [
        (1, {}, None),
        (2, {}, None),
        (2, {"collect_ahead": True}, None),
        (2, {"workers": 2}, None),
        (3, {}, 3),
        (1, {"workers": 3}, 3),
        (2, {"workers": 2, "collect_ahead": True}, 3),
        (1, {"workers": 2, "collect_ahead": True}, None),
    ],
)
def test_more_processes_than_cores_are_one_line_of_warning(cores, settings, processes, monkeypatch):
    monkeypatch.setattr(cores_module, "available_cores", lambda: 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_more_processes_than_cores(cores, small_config("sac_lag", **settings))
    messages = [str(w.message) for w in caught]
    if processes is None:
        assert messages == []
    else:
        (message,) = messages
        assert message.startswith(f"the run has work for {processes} processes at a time (cores={cores}, ")
        assert "and 2 cores are available" in message
        assert "\n" not in message
