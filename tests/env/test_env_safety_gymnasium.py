"""Compare safety-gymnasium's tasks with the package itself, bit for bit; check drawing and layouts."""

import ctypes.util
import dataclasses
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from fsrl_ext.env import can_terminate, make
from fsrl_ext.env.safety_gymnasium.importing import array_defaults, import_safety_gymnasium

pytest.importorskip("mujoco")
if sys.modules.get("safety_gymnasium") is None:
    pytest.importorskip("gymnasium_robotics")


# safety-gymnasium turns arrays of one element into numbers.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")


def stock(task: str) -> Any:
    return import_safety_gymnasium().make(task)


def test_identical_to_the_package_over_resets() -> None:
    # 700 steps are an episode, a reset in the same stream, and a part of the next.
    env, package = make("SafetyPointCircle1-v0"), stock("SafetyPointCircle1-v0")
    rng = np.random.default_rng(1)
    observation, _ = env.reset(seed=9)
    expected, _ = package.reset(seed=9)
    resets = 0
    for _ in range(700):
        assert np.array_equal(observation, expected.astype(np.float32))
        action = rng.uniform(-1, 1, 2)
        expected, reward, cost, terminated, truncated, _ = package.step(action)
        observation, *step, info = env.step(action)
        assert step == [reward, terminated, truncated]
        assert info["cost"] == cost
        if truncated:
            resets += 1
            observation, _ = env.reset()
            expected, _ = package.reset()
    assert resets == 1
    env.close()


@pytest.mark.parametrize("task", ["SafetyCarButton1-v0", "SafetyRacecarCircle2-v0"])
def test_identical_to_the_package_with_moving_objects(task: str) -> None:
    env, package = make(task), stock(task)
    rng = np.random.default_rng(2)
    observation, _ = env.reset(seed=2)
    expected, _ = package.reset(seed=2)
    for _ in range(200):
        assert np.array_equal(observation, expected.astype(np.float32))
        action = rng.uniform(-1, 1, env.action_space.shape)
        expected, reward, cost, *_ = package.step(action)
        observation, mine, _, _, info = env.step(action)
        assert (mine, info["cost"]) == (reward, cost)
    env.close()


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("robot", ["Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d"])
def test_velocity_task_equals_the_package(robot: str, version: str) -> None:
    task = f"Safety{robot}Velocity-{version}"
    env, package = make(task), stock(task)
    rng = np.random.default_rng(3)
    expected, _ = package.reset(seed=3)
    observation, _ = env.reset(seed=3)
    for step in range(60):
        assert np.array_equal(observation, expected.astype(np.float32))
        assert observation.dtype == np.float32
        # Policies hand over float32.
        action = rng.uniform(-1, 1, env.action_space.shape).astype([np.float32, np.float64][step % 2])
        expected, reward, cost, terminated, _, notes = package.step(action)
        observation, mine, ended, _, info = env.step(action)
        assert info == {**notes, "cost": cost}
        assert (mine, ended) == (reward, terminated)
        if terminated:
            expected, _ = package.reset()
            observation, _ = env.reset()
    with pytest.raises(ValueError, match="Action dimension mismatch"):
        env.step(np.zeros(1 + len(action)))
    env.close()


def test_velocity_task_ends_at_its_time_limit_and_needs_a_reset() -> None:
    env = make("SafetySwimmerVelocity-v1", max_episode_steps=3)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    env.close()


def test_only_our_environments_go_without_the_sky() -> None:
    env, package = make("SafetyPointGoal0-v0"), stock("SafetyPointGoal0-v0")
    env.reset(seed=0)
    package.reset(seed=0)
    mine, theirs = env.simulator.task.model, package.unwrapped.task.model
    assert theirs.tex_rgb.nbytes > 100e6  # six pictures of stars
    assert mine.tex_rgb.nbytes < 1e6
    assert mine.nq == theirs.nq
    assert mine.ngeom == theirs.ngeom
    env.close()


def test_race_runs_although_the_package_lacks_its_pictures() -> None:
    env = make("SafetyCarRace2-v0")
    env.reset(seed=0)
    assert env.simulator.task.model.nmesh > 0
    _, _, terminated, _, info = env.step(np.zeros(2))
    assert not terminated
    assert info["cost"] == 0.0
    env.close()


def test_a_layout_that_starts_with_a_cost_is_drawn_again() -> None:
    env = make("SafetyPointGoal1-v0")
    task = env.simulator.task
    # Objects may overlap now, and the package asserts that the agent does not start in a hazard.
    task.placements_conf.extents = [-0.4, -0.4, 0.4, 0.4]
    task.agent.keepout = task.hazards.keepout = task.vases.keepout = task.goal.keepout = 0.0
    task.hazards.num, task.vases.num = 2, 1
    calls = []
    reset = env.simulator.reset

    def counted(seed: int | None = None) -> Any:
        calls.append(seed)
        return reset(seed=seed)

    env.simulator.reset = counted
    firsts = [env.reset(seed=seed)[0] for seed in range(8)]
    assert len(calls) > 8  # some had to be drawn again
    assert all(np.array_equal(env.reset(seed=s)[0], firsts[s]) for s in range(8))
    env.close()


def test_config_changes_entries_of_the_registered_one() -> None:
    env = make("SafetyPointGoal0-v0", config={"sim_conf.frameskip_binom_n": 5})
    task = env.simulator.task
    assert task.agent_name == "Point"
    assert can_terminate(env) is None
    env.reset(seed=0)
    env.step(np.zeros(2))
    assert task.data.time == pytest.approx(5 * task.model.opt.timestep)
    env.close()


def test_a_fixed_layout_is_the_same_for_every_seed() -> None:
    env = make("SafetyPointGoal0-v0")
    env.simulator.task.mechanism_conf.randomize_layout = False
    first, _ = env.reset(seed=1)  # the package refuses a seed here
    assert np.array_equal(first, env.reset(seed=2)[0])
    env.close()


def test_arrays_become_fresh_defaults_and_dataclasses_are_left_as_they_were() -> None:
    original = dataclasses.dataclass
    with array_defaults():

        @dataclasses.dataclass
        class Plain:
            color: np.ndarray = np.zeros(3)  # noqa: RUF009

        @dataclasses.dataclass(frozen=True)
        class Frozen:
            color: np.ndarray = np.ones(2)  # noqa: RUF009
            size: float = 0.5

    assert dataclasses.dataclass is original
    one, two = Plain(), Plain()
    one.color[0] = 1.0
    assert two.color[0] == 0.0
    assert Frozen().size == 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        Frozen().size = 1.0
    with pytest.raises(KeyError), array_defaults():
        raise KeyError
    assert dataclasses.dataclass is original


needs_gl = pytest.mark.skipif(
    not os.environ.get("DISPLAY") and not any(ctypes.util.find_library(name) for name in ("EGL", "OSMesa")),
    reason="no display, and neither EGL nor OSMesa to draw with",
)


@needs_gl
@pytest.mark.parametrize("task", ["SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"])
def test_frames(task: str) -> None:
    env = make(task, render_mode="rgb_array")
    plain = make(task)
    assert np.array_equal(env.reset(seed=0)[0], plain.reset(seed=0)[0])
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    assert frame.std() > 10
    for _ in range(5):
        action = env.action_space.sample()
        assert np.array_equal(env.step(action)[0], plain.step(action)[0])
    env.close()
    env.close()
    plain.close()


@needs_gl
def test_vision_observations_keep_their_images() -> None:
    env = make("SafetyPointGoal0Vision-v0")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert observation["vision"].dtype == np.uint8
    assert observation["goal_lidar"].dtype == np.float32
    assert observation["vision"].std() > 10
    env.close()


@needs_gl
@pytest.mark.parametrize("task", ["SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"])
def test_frames_do_not_depend_on_other_environments(task: str) -> None:
    def frames(env: Any, seed: int) -> Iterator[np.ndarray]:
        env.reset(seed=seed)
        yield env.render()
        env.step(np.ones(env.action_space.shape))
        yield env.render()

    alone = []
    for seed in (0, 1):
        env = make(task, render_mode="rgb_array")
        alone.append(list(frames(env, seed)))
        env.close()
    assert not np.array_equal(alone[0][0], alone[1][0])

    first, second = make(task, render_mode="rgb_array"), make(task, render_mode="rgb_array")
    in_turn = list(zip(frames(first, 0), frames(second, 1), strict=True))
    np.testing.assert_array_equal(in_turn, list(zip(*alone, strict=True)))
    first.close()
    np.testing.assert_array_equal(second.render(), alone[1][1])
    # The collector deletes what a closed environment has left, whichever context is current.
    del first
    gc.collect()
    np.testing.assert_array_equal(second.render(), alone[1][1])
    second.close()


@needs_gl
def test_an_environment_that_was_dropped_without_close_does_not_blacken_another() -> None:
    dropped = make("SafetyPointGoal1-v0", render_mode="rgb_array")
    dropped.reset(seed=0)
    dropped.render()
    env = make("SafetyPointGoal1-v0", render_mode="rgb_array")
    env.reset(seed=1)
    frame = env.render()
    del dropped
    gc.collect()
    np.testing.assert_array_equal(env.render(), frame)
    env.close()


def test_drawing_without_any_opengl_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(RuntimeError, match="SafetyPointGoal1-v0: drawing needs a display, or EGL"):
        make("SafetyPointGoal1-v0", render_mode="rgb_array")
    assert "MUJOCO_GL" not in os.environ
