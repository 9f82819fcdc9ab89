"""Check `make` by name: the table against the installed packages, users' tasks, vector workers."""

import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator
from tianshou.env import DummyVectorEnv, ShmemVectorEnv, SubprocVectorEnv
from toys.envs import DiscreteEnv, TwoCostWalkEnv, WalkEnv

from fsrl_ext.env import (
    SuiteNotInstalledError,
    UnknownTaskError,
    can_terminate,
    env_fn,
    list_tasks,
    make,
    register_task,
    time_limit,
)
from fsrl_ext.env.meta.safety_families import AGENTS
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium
from fsrl_ext.env.suite_tasks import FIXED_TASKS

# safety-gymnasium turns arrays of one element into numbers.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

TESTS = Path(__file__).parents[1]
# Those of several agents are not registered anywhere: test_env_agents.py.
OTHERS = ("known-optimum", "safety-gymnasium-agents", "user")
# The suites of other packages, and the families on their robots.
SUITES = {task.id: task for task in list_tasks() if task.suite not in OTHERS and task.id not in FIXED_TASKS}


def test_table_is_what_bullet_safety_gym_registers() -> None:
    pytest.importorskip("bullet_safety_gym")
    theirs = {
        spec.id: spec.max_episode_steps
        for spec in gymnasium.registry.values()
        if str(spec.entry_point).startswith("bullet_safety_gym")
    }
    mine = {t.id: t.horizon for t in SUITES.values() if t.suite == "bullet-safety-gym"}
    assert mine == theirs
    assert len(mine) == 18


def test_table_is_what_safety_gymnasium_registers() -> None:
    pytest.importorskip("mujoco")
    import_safety_gymnasium()
    from safety_gymnasium.utils.registration import safe_registry

    theirs = {id: gymnasium.registry[id].max_episode_steps for id in safe_registry}
    mine = {t.id: t.horizon for t in SUITES.values() if t.suite == "safety-gymnasium"}
    assert mine == theirs
    assert len(mine) == 298


def test_table_says_which_tasks_can_end_early() -> None:
    pytest.importorskip("bullet_safety_gym")
    pytest.importorskip("mujoco")
    import_safety_gymnasium()
    for id, task in SUITES.items():
        if task.suite == "meta":  # not in the registry: test_env_meta_draws.py
            continue
        entry = gymnasium.registry[id]
        if task.suite == "bullet-safety-gym":
            # RaceCar and Ball are always alive; of the tasks only Gather has an end.
            expected = entry.kwargs["agent"] in ("Ant", "Drone") or entry.kwargs["task"] == "GatherTask"
        elif "Velocity" in id:
            # Gymnasium's robots that can fall have this property.
            expected = hasattr(load_env_creator(str(entry.entry_point)), "terminated")
        else:
            expected = entry.kwargs["config"]["agent_name"] == "Ant" or "Race" in id.replace("Racecar", "")
        assert task.can_terminate is expected, id


def test_unknown_names_get_the_nearest_ones() -> None:
    with pytest.raises(UnknownTaskError, match=r"'SafetyCarCirle-v0'; did you mean .*CarCircle-v0"):
        make("SafetyCarCirle-v0")
    with pytest.raises(UnknownTaskError, match="did you mean SafetyPointGoal1-v0"):
        make("SafetyPointGoal1")
    with pytest.raises(UnknownTaskError, match=r"'xyzzy'; see fsrl_ext\.env\.list_tasks"):
        make("xyzzy")
    assert issubclass(UnknownTaskError, ValueError)


@pytest.mark.parametrize(
    ("task", "command"),
    [
        ("SafetyCarCircle-v0", r'pip install "fsrl_ext\[bullet\]"'),
        ("SafetyPointGoal1-v0", r"pip install --no-deps safety-gymnasium==1\.0\.0"),
    ],
)
def test_missing_suite_names_the_command(task: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SuiteNotInstalledError, match=command) as raised:
        make(task)
    assert "\n" not in str(raised.value)
    assert not any(t.installed for t in list_tasks() if t.id in SUITES)


def test_time_limit_and_can_terminate() -> None:
    assert can_terminate("SafetyCarCircle-v0") is False
    assert can_terminate("SafetyBallGather-v0") is True
    assert can_terminate("SafetyPointGoal1-v0") is False
    assert can_terminate("SafetyAntGoal1-v0") is True
    assert can_terminate("SafetyHopperVelocity-v1") is True
    assert can_terminate("CartPole-v1") is None
    assert can_terminate(WalkEnv()) is None
    assert time_limit(WalkEnv()) is None
    assert time_limit(gymnasium.make("CartPole-v1")) == 500
    if SUITES["SafetyHopperVelocity-v1"].installed:
        assert can_terminate(make("SafetyHopperVelocity-v1")) is True
        immortal = make("SafetyHopperVelocity-v1", terminate_when_unhealthy=False)
        assert can_terminate(immortal) is None
        assert time_limit(immortal) == 1000


def test_registered_task_with_one_cost() -> None:
    register_task("OneCost-v0", entry_point=WalkEnv, num_costs=1, can_terminate=False, max_episode_steps=10)
    (info,) = [task for task in list_tasks() if task.id == "OneCost-v0"]
    assert (info.suite, info.horizon, info.can_terminate, info.installed) == (
        "user",
        10,
        False,
        True,
    )
    env = make("OneCost-v0")
    assert time_limit(env) == 10
    assert can_terminate(env) is False
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    steps = [env.step(np.ones(1)) for _ in range(10)]
    assert [step[3] for step in steps] == [False] * 9 + [True]
    assert {type(step[4]["cost"]) for step in steps} == {float}
    assert time_limit(make("OneCost-v0", max_episode_steps=3)) == 3


def test_registered_task_with_two_costs_by_name_of_its_class() -> None:
    register_task("TwoCost-v0", entry_point="toys.envs:TwoCostWalkEnv", num_costs=2, kwargs={"costs": None})
    env = make("TwoCost-v0")
    env.reset(seed=0)
    cost = env.step(np.ones(1))[4]["cost"]
    assert cost.shape == (2,)
    assert cost.dtype == np.float32
    assert time_limit(env) is None


def test_gymnasiums_own_registration_is_enough_and_modules_can_be_named() -> None:
    gymnasium.register("Plain-v0", entry_point=TwoCostWalkEnv, max_episode_steps=4)
    env = make("toys.envs:Plain-v0")
    env.reset(seed=0)
    assert env.step(np.ones(1))[4]["cost"].shape == (2,)
    assert can_terminate(env) is None


def test_an_environment_without_a_cost_is_named() -> None:
    env = make("CartPole-v1")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"CartPole-v1, step 1: info has no \"cost\""):
        env.step(0)


def test_discrete_actions_are_allowed() -> None:
    register_task("Coin-v0", entry_point=DiscreteEnv, max_episode_steps=3)
    env = make("Coin-v0")
    env.reset(seed=0)
    assert type(env.step(env.action_space.sample())[4]["cost"]) is float


def test_registration_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="belongs to bullet-safety-gym"):
        register_task("SafetyCarCircle-v0", entry_point=WalkEnv)
    with pytest.raises(ValueError, match="num_costs must be a whole number >= 1, got 0"):
        register_task("Zero-v0", entry_point=WalkEnv, num_costs=0)
    assert "Zero-v0" not in gymnasium.registry


@pytest.fixture(scope="module", autouse=True)
def worker_task() -> None:
    register_task("Worker-v0", entry_point="toys.envs:WalkEnv", num_costs=1, max_episode_steps=10)


@pytest.mark.parametrize("vector", [DummyVectorEnv, SubprocVectorEnv, ShmemVectorEnv])
@pytest.mark.parametrize("task", ["SafetyBallRun-v0", "SafetyPointGoal0-v0", "Worker-v0"])
def test_vector_workers(vector: type, task: str) -> None:
    envs = vector([lambda: make(task) for _ in range(2)])
    envs.seed([1, 2])
    observations, _ = envs.reset()
    assert not np.array_equal(observations[0], observations[1])
    single = make(task)
    single.reset(seed=1)
    assert np.array_equal(observations[0], single.reset()[0])
    action = single.action_space.sample()
    expected = single.step(action)
    observations, rewards, _, _, infos = envs.step(np.stack([action, action]))
    assert np.array_equal(observations[0], expected[0])
    assert rewards[0] == expected[1]
    assert infos[0]["cost"] == expected[4]["cost"]
    envs.close()
    single.close()


@pytest.mark.parametrize("task", ["SafetyPointGoal0-v0", "Worker-v0"])
def test_env_fn_works_in_a_process_that_has_registered_nothing(task: str) -> None:
    expected, _ = make(task).reset(seed=1)
    program = (
        "import pickle, sys; env = pickle.load(sys.stdin.buffer)(); "
        "sys.stdout.buffer.write(pickle.dumps((env.reset(seed=1)[0], env.step(env.action_space."
        "sample())[4]['cost'], env.spec.max_episode_steps)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=cloudpickle.dumps(env_fn(task)),
        capture_output=True,
        check=True,
        cwd=TESTS,  # where the package `toys` is
    )
    observation, cost, horizon = pickle.loads(result.stdout)
    assert np.array_equal(observation, expected)
    assert type(cost) is float
    assert horizon == make(task).spec.max_episode_steps


def test_spawned_vector_workers() -> None:
    envs = SubprocVectorEnv([env_fn("SafetyBallRun-v0")], context="spawn")
    observations, _ = envs.reset(seed=1)
    assert np.array_equal(observations[0], make("SafetyBallRun-v0").reset(seed=1)[0])
    envs.close()


KINDS = sorted(
    id.removeprefix("SafetyPoint")
    for id in SUITES
    if id.startswith("SafetyPoint") and not id.endswith(("Vision-v0", "Debug-v0"))
)


# Every kind of task with one agent in turn; `benchmarks/environments.py --ids` builds all 375.
@pytest.mark.parametrize(
    "task",
    [f"Safety{AGENTS[i % len(AGENTS)]}{kind}" for i, kind in enumerate(KINDS)]
    + [id for id in SUITES if id.endswith("Velocity-v1")]
    + [id for id in SUITES if SUITES[id].suite == "bullet-safety-gym" and "Drone" not in id],
)
def test_every_kind_of_task_can_be_built_and_stepped(task: str) -> None:
    if not SUITES[task].installed:
        pytest.skip(f"{SUITES[task].suite} is not installed")
    env = make(task)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.step(env.action_space.sample())[4]["cost"] >= 0.0
    env.close()
