"""Check what holds for every task of both suites, on a list that has each kind."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from toys.simulators import assert_passes_checker, flat_step, rollout

from fsrl_ext.env import make, time_limit

pytest.importorskip("bullet_safety_gym")
pytest.importorskip("mujoco")

# safety-gymnasium turns arrays of one element into numbers.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

BULLET = [
    "SafetyCarCircle-v0",
    "SafetyBallRun-v0",
    "SafetyBallReach-v0",
    "SafetyCarPush-v0",
    "SafetyAntGather-v0",
    "SafetyDroneCircle-v0",
]
NAVIGATION = [
    "SafetyPointCircle1-v0",
    "SafetyCarGoal1-v0",
    "SafetyRacecarCircle2-v0",
    "SafetyPointPush1-v0",
    "SafetyDoggoRun0-v0",
    "SafetyPointRace1-v0",
    "SafetyCarFadingEasy1-v0",
]
VELOCITY = ["SafetyHalfCheetahVelocity-v1", "SafetyHopperVelocity-v1", "SafetyHumanoidVelocity-v0"]
TASKS = BULLET + NAVIGATION + VELOCITY


def global_stream() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return state["key"].tobytes(), state["pos"]


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_passes_gymnasiums_checker_without_warnings(task: str) -> None:
    env = make(task)
    assert_passes_checker(env)
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_step_keeps_the_contract(task: str) -> None:
    env = make(task)
    assert env.observation_space.dtype == np.float32
    with pytest.raises(gymnasium.error.ResetNeeded, match=task):
        env.step(env.action_space.sample())
    observation, info = env.reset(seed=0)
    assert isinstance(info, dict)
    for _ in range(10):
        assert observation.dtype == np.float32
        assert env.observation_space.contains(observation)
        result = env.step(env.action_space.sample())
        assert len(result) == 5
        observation, reward, terminated, truncated, info = result
        assert [type(x) for x in (reward, terminated, truncated)] == [float, bool, bool]
        assert type(info["cost"]) is float
        assert info["cost"] >= 0.0
    env.close()
    env.close()  # harmless


@pytest.mark.parametrize("task", TASKS)
def test_seed_decides_everything_and_instances_are_independent(task: str) -> None:
    np.random.seed(0)  # noqa: NPY002
    before = global_stream()
    env, other = make(task), make(task)
    first = rollout(env, seed=5)
    # The second instance is at work while the first repeats itself.
    other.reset(seed=11)
    repeated = []
    for part in range(2):
        observation, _ = env.reset(seed=5 if part == 0 else None)
        repeated.append(observation)
        for _ in range(30):
            repeated.append(flat_step(step := env.step(env.action_space.sample())))
            if other.step(other.action_space.sample())[2]:
                other.reset()
            if step[2] or step[3]:
                break
    assert same(first, repeated)
    assert same(first, rollout(other, seed=5))
    assert not same(first, rollout(other, seed=6))
    assert global_stream() == before
    env.close()
    other.close()


@pytest.mark.parametrize("task", ["SafetyCarCircle-v0", "SafetyPointGoal1-v0"])
def test_a_seed_beyond_32_bits_is_a_seed(task: str) -> None:
    env = make(task)
    first = rollout(env, seed=2**40 + 1, steps=10)
    assert same(first, rollout(env, seed=2**40 + 1, steps=10))
    assert not same(first, rollout(env, seed=1, steps=10))
    env.close()


def test_without_a_seed_instances_differ() -> None:
    for task in ("SafetyCarCircle-v0", "SafetyPointGoal1-v0", "SafetyHopperVelocity-v1"):
        env, other = make(task), make(task)
        assert not np.array_equal(env.reset()[0], other.reset()[0])
        env.close()
        other.close()


@pytest.mark.parametrize(
    ("task", "horizon"),
    [("SafetyBallRun-v0", 100), ("SafetyPointCircle1-v0", 500), ("SafetySwimmerVelocity-v1", 1000)],
)
def test_end_by_time_is_truncated_not_terminated(task: str, horizon: int) -> None:
    env = make(task)
    assert time_limit(env) == horizon
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape)
    ends = [env.step(still)[2:4] for _ in range(horizon)]
    assert ends == [(False, False)] * (horizon - 1) + [(False, True)]
    env.close()


@pytest.mark.parametrize("task", ["SafetyBallRun-v0", "SafetyPointGoal1-v0"])
@pytest.mark.parametrize("horizon", [5, 1200])
def test_the_horizon_can_be_chosen(task: str, horizon: int) -> None:
    env = make(task, max_episode_steps=horizon)
    assert time_limit(env) == horizon
    for _ in range(2):
        env.reset(seed=0)
        steps = 1
        while not env.step(np.zeros(env.action_space.shape))[3]:
            steps += 1
        assert steps == horizon
    env.close()


def test_horizon_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_episode_steps must be a whole number >= 1, got 0"):
        make("SafetyBallRun-v0", max_episode_steps=0)


@pytest.mark.parametrize(
    ("task", "action"),
    [
        ("SafetyHopperVelocity-v1", [1, 1, 1]),
        ("SafetyDroneRun-v0", [1, -1, -1, 1]),
        ("SafetyAntReach-v0", [-1] * 8),
    ],
)
def test_a_fall_is_terminated_not_truncated(task: str, action: list[float]) -> None:
    env = make(task)
    env.reset(seed=0)
    for _ in range(time_limit(env) - 1):
        _, _, terminated, truncated, _ = env.step(np.array(action, dtype=np.float32))
        if terminated:
            break
    assert terminated
    assert not truncated
    env.close()


@pytest.mark.parametrize("task", ["SafetyBallRun-v0", "SafetyPointGoal1-v0"])
def test_unknown_render_mode_is_refused(task: str) -> None:
    with pytest.raises(ValueError, match=r"render_mode must be None or one of \[.*got 'film'"):
        make(task, render_mode="film")


def test_gymnasium_can_rebuild_the_environment_from_its_spec() -> None:
    env = make("SafetyBallRun-v0", max_episode_steps=7)
    again = gymnasium.make(env.spec)
    assert np.array_equal(env.reset(seed=1)[0], again.reset(seed=1)[0])
    assert again.spec.max_episode_steps == 7
    env.close()
    again.close()
