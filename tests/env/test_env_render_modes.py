"""Modes of drawing that collect frames, drawing without a mode, and safety-gymnasium's second ids."""

from __future__ import annotations

import numpy as np
import pytest

from fsrl_ext.env import can_terminate, env_fn, make
from fsrl_ext.experiment import make_config


def test_a_list_mode_returns_the_frames_since_the_last_call():
    env = make("SafetyBallRun-v0", "rgb_array_list")
    assert env.render_mode == "rgb_array_list"
    env.reset(seed=0)
    for _ in range(2):
        env.step(env.action_space.sample())
    frames = env.render()
    assert [frame.shape for frame in frames] == [(360, 480, 3)] * 3
    assert env.render() == []
    assert env.unwrapped.cost_names is None


@pytest.mark.parametrize("mode", ["depth_array_list", "ascii_list"])
def test_a_list_of_a_mode_that_is_not_there_is_refused(mode):
    with pytest.raises(ValueError, match=r"render_mode must be None or one of .*human"):
        make("SafetyBallRun-v0", mode)


@pytest.mark.parametrize(
    "task", ["SafetyBallRun-v0", "SafetyPointGoal1-v0", "SafetyHopperVelocity-v1", "KnownOptimum-v0"]
)
def test_without_a_mode_nothing_is_drawn(task):
    env = make(task)
    env.reset(seed=0)
    assert env.render() is None


@pytest.mark.parametrize("task", ["SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"])
def test_the_second_id_of_a_task_is_the_same_task(task):
    other = task.replace("-", "Gymnasium-")
    one, same = make(task), env_fn(other)()
    np.testing.assert_array_equal(one.reset(seed=1)[0], same.reset(seed=1)[0])
    action = one.action_space.sample()
    for a, b in zip(one.step(action), same.step(action), strict=True):
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
    assert can_terminate(other) is can_terminate(task)
    assert make_config("cvpo", other) == make_config("cvpo", task)
