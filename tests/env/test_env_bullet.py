"""Compare bullet-safety-gym's tasks with the package itself; check their randomness and their frames."""

import copy
import random

import gymnasium
import numpy as np
import pytest

from fsrl_ext.env import make
from fsrl_ext.env.legacy_random import LegacyRandom
from fsrl_ext.env.quiet import quiet

pytest.importorskip("bullet_safety_gym")


@pytest.mark.parametrize("task", ["SafetyCarCircle-v0", "SafetyBallGather-v0", "SafetyAntRun-v0"])
def test_episodes_are_the_packages_own(task: str) -> None:
    env = make(task)
    with quiet():  # the package redirects the real streams, which pytest has replaced
        from bullet_safety_gym.envs.builder import EnvironmentBuilder

        package = EnvironmentBuilder(**gymnasium.registry[task].kwargs)
    rng = np.random.default_rng(0)
    np.random.seed(4)  # noqa: NPY002
    for episode in range(2):
        expected, _ = package.reset()
        observation, _ = env.reset(seed=4 if episode == 0 else None)
        assert np.array_equal(observation, expected.astype(np.float32))
        for _ in range(80):
            action = rng.uniform(-1, 1, env.action_space.shape)
            expected, reward, terminated, _, info = package.step(action)
            step = env.step(action)
            assert np.array_equal(step[0], expected.astype(np.float32))
            assert (step[1], step[2], step[4]["cost"]) == (reward, terminated, info["cost"])
            if terminated:
                break
    package.close()
    env.close()


def test_obstacles_circle_in_simulated_time_from_a_phase_of_their_own() -> None:
    env = make("SafetyBallReach-v0")
    phases = set()
    for seed in range(3):
        env.reset(seed=seed)
        (box,) = [o for o in env.simulator.obstacles if o.movement == "circular"]
        phases.add(box.movement_offset)
        # The box is pulled towards a point on a circle of 0.7 m, one radian per second.
        angles = []
        for _ in range(200):
            env.step(np.zeros(2))
            offset = box.get_position()[:2] - np.asarray(box.init_xyz)[:2]
            angles.append(np.arctan2(offset[0], offset[1]))
        turned = np.unwrap(angles)
        seconds = 150 * env.simulator.dt
        assert turned[-1] - turned[-151] == pytest.approx(seconds, rel=0.1)
    assert len(phases) == 3
    env.close()


def test_the_global_generators_are_left_alone() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    env = make("SafetyBallPush-v0")
    env.reset(seed=0)
    env.reset()
    env.simulator.task.update_goal()  # what a step does when the goal is reached
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002
    env.close()


def test_a_stream_goes_on_across_nested_and_separate_blocks() -> None:
    stream = LegacyRandom(3)
    draws = []
    for _ in range(2):
        with stream():
            draws.append((random.random(), np.random.random()))  # noqa: NPY002
            with stream():
                draws.append((random.random(), np.random.random()))  # noqa: NPY002
    python, numpy = random.Random(3), np.random.RandomState(3)
    assert draws == [(python.random(), numpy.random()) for _ in range(4)]


def test_a_step_that_draws_a_new_goal_is_seeded() -> None:
    goals = []
    for _ in range(2):
        env = make("SafetyBallPush-v0")
        env.reset(seed=3)
        env.simulator.task.update_goal()
        goals.append(env.simulator.task.goal.get_position())
        env.close()
        np.random.random(5)  # noqa: NPY002
    assert np.array_equal(*goals)


def test_layout_arguments_reach_the_package() -> None:
    env = make("SafetyBallCircle-v0", agent="Drone")
    assert env.action_space.shape == (4,)
    env.close()


@pytest.mark.parametrize("task", ["SafetyCarCircle-v0", "SafetyBallReach-v0"])
def test_frames_without_a_display(task: str) -> None:
    env = make(task, render_mode="rgb_array")
    plain = make(task)
    assert np.array_equal(env.reset(seed=0)[0], plain.reset(seed=0)[0])
    first = env.render()
    assert first.dtype == np.uint8
    assert first.shape == (360, 480, 3)
    assert first.std() > 10  # something is seen
    assert env.metadata["render_fps"] == round(1 / env.simulator.dt)
    action = np.ones(2)
    for _ in range(30):
        assert np.array_equal(env.step(action)[0], plain.step(action)[0])
    assert not np.array_equal(first, env.render())
    assert plain.render() is None
    env.close()
    plain.close()


def test_a_window_without_a_display_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(RuntimeError, match=r"SafetyCarCircle-v0: render_mode=\"human\".*DISPLAY"):
        make("SafetyCarCircle-v0", render_mode="human")


def test_a_copy_would_share_the_physics_server_and_is_refused() -> None:
    env = make("SafetyBallRun-v0")
    with pytest.raises(TypeError, match=r"^SafetyBallRun-v0 cannot be copied or pickled"):
        copy.deepcopy(env)
    env.close()
