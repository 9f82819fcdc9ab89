"""Follow a user's own family from its registration to its suites and workers."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from tianshou.env import DummyVectorEnv, SubprocVectorEnv
from toys.envs import AimEnv, PushEnv

from fsrl_ext.env import can_terminate, env_fn, list_tasks, make, register_family, time_limit
from fsrl_ext.env.meta import (
    Choice,
    Computed,
    Fixed,
    Integers,
    Parameters,
    TaskDistribution,
    Uniform,
    held_out_suite,
    list_families,
)


def build_push(parameters: Parameters, **kwargs: Any) -> gymnasium.Env:
    return PushEnv(parameters["mass"], parameters["fence"], **kwargs)


def near(mass: float, width: float) -> float:
    return mass * width


LEVELS = {
    0: {"mass": Fixed(1.0), "width": Fixed(0.1), "fence": Computed(near, ("mass", "width"))},
    1: {"mass": Uniform(1.0, 2.0), "width": Choice((0.1, 0.2)), "fence": Computed(near, ("mass", "width"))},
    2: {"mass": Uniform(3.0, 4.0), "width": Fixed(0.1), "fence": Computed(near, ("mass", "width"))},
}


@pytest.fixture(scope="module", autouse=True)
def push() -> None:
    ids = register_family(
        "MetaPush", build_push, LEVELS, num_costs=1, can_terminate=False, max_episode_steps=5
    )
    assert ids == ["MetaPush0-v0", "MetaPush1-v0", "MetaPush2-v0"]


def test_levels_are_tasks() -> None:
    listed = {task.id: task for task in list_tasks()}
    assert "MetaPush" in list_families()
    for level in range(3):
        task = listed[f"MetaPush{level}-v0"]
        assert (task.suite, task.horizon, task.can_terminate, task.num_costs) == ("user", 5, False, 1)
    env = make("MetaPush1-v0", task_seed=8)
    assert time_limit(env) == 5
    assert can_terminate(env) is False
    assert can_terminate("MetaPush1-v0") is False


def test_a_seed_draws_the_task_and_resets_do_not() -> None:
    for level in range(3):
        drawn = set()
        for task_seed in range(6):
            env = make(f"MetaPush{level}-v0", task_seed=task_seed)
            made = env.unwrapped
            parameters = made.task_parameters
            assert made.task_seed == task_seed
            assert (made.mass, made.fence) == (parameters["mass"], parameters["mass"] * parameters["width"])
            starts = [env.reset(seed=seed)[0].tobytes() for seed in (0, 1, 0)]
            assert starts[0] == starts[2] != starts[1]
            assert made.task_parameters == parameters
            drawn.add(parameters)
        assert len(drawn) == (1 if level == 0 else 6)
    default = make("MetaPush1-v0").unwrapped
    assert default.task_parameters == make("MetaPush1-v0", task_seed=0).unwrapped.task_parameters
    observation, _ = make("MetaPush1-v0").reset(seed=0)
    assert observation.dtype == np.float32


def test_keyword_arguments_reach_the_builder() -> None:
    env = make("MetaPush1-v0", render_mode="ansi", max_episode_steps=2)
    env.reset(seed=0)
    assert isinstance(env.render(), str)
    assert time_limit(env) == 2
    with pytest.raises(TypeError, match="colour"):
        make("MetaPush1-v0", colour="red")


def test_distribution_and_suites() -> None:
    tasks = TaskDistribution("MetaPush", level=1, seed=0).draw(30)
    suites = {where: held_out_suite("MetaPush", where) for where in ("inside", "outside")}
    for where, low, high in (("inside", 1.0, 2.0), ("outside", 3.0, 4.0)):
        suite = suites[where]
        assert len(set(suite)) == 20
        assert not set(suite) & set(tasks)
        assert all(low <= task.parameters["mass"] <= high for task in suite)
    for task in (tasks[3], suites["outside"][5]):
        assert task.make().unwrapped.task_parameters == task.parameters
        assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize("vector", [DummyVectorEnv, SubprocVectorEnv])
def test_vector_workers_have_a_task_each(vector: type) -> None:
    for family in ("MetaPush", "SafetyPointStcircle"):
        group = TaskDistribution(family).draw(2)
        envs = vector([task.env_fn() for task in group])
        assert list(envs.get_env_attr("task_parameters")) == [task.parameters for task in group]
        envs.reset(seed=0)
        _, _, _, _, infos = envs.step(np.zeros((len(group), *envs.action_space[0].shape)))
        assert [info["cost"] for info in infos] == [0.0] * len(group)
        envs.close()


def test_a_process_that_has_registered_nothing() -> None:
    program = (
        "import pickle, sys; env = pickle.load(sys.stdin.buffer)(); "
        "sys.stdout.buffer.write(pickle.dumps((dict(env.unwrapped.task_parameters), env.reset(seed=1)[0])))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=cloudpickle.dumps(env_fn("MetaPush2-v0", task_seed=3)),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent,  # where this module is, which has the family's builder
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    parameters, observation = pickle.loads(result.stdout)
    env = make("MetaPush2-v0", task_seed=3)
    assert parameters == env.unwrapped.task_parameters
    assert np.array_equal(observation, env.reset(seed=1)[0])


def test_a_family_with_fewer_levels_and_two_costs() -> None:
    register_family("MetaTwo", lambda p: AimEnv(p["target"], 2), {1: {"target": Integers(1, 3)}}, num_costs=2)
    env = make("MetaTwo1-v0", task_seed=1)
    env.reset(seed=0)
    assert env.step(np.zeros(1))[4]["cost"].tolist() == [0.5, 0.25]
    with pytest.raises(ValueError, match=r"level must be one of \[1\] for MetaTwo, got 2"):
        held_out_suite("MetaTwo", "outside")


def test_registration_refuses_what_cannot_work() -> None:
    levels = {1: {"mass": Fixed(1.0)}}
    registered = set(gymnasium.registry)
    with pytest.raises(ValueError, match="name must be new, got 'MetaPush'"):
        register_family("MetaPush", build_push, levels)
    with pytest.raises(ValueError, match="name must be new, got 'SafetyAntStcircle'"):
        register_family("SafetyAntStcircle", build_push, levels)
    with pytest.raises(
        ValueError, match=r"name must give new ids, got 'SafetyPointGoal': \['SafetyPointGoal1"
    ):
        register_family("SafetyPointGoal", build_push, levels)
    for name in ("", "Push2"):
        with pytest.raises(ValueError, match=f"name must end in a letter.*got '{name}'"):
            register_family(name, build_push, levels)
    for wrong in ({}, {"1": {}}, {10: {}}, {True: {}}):
        with pytest.raises(ValueError, match="levels must have at least one key, all integers in"):
            register_family("MetaNew", build_push, wrong)
    with pytest.raises(ValueError, match=r"levels\[1\]\['mass'\] must be a distribution .* got 3"):
        register_family("MetaNew", build_push, {1: {"mass": 3}})
    with pytest.raises(ValueError, match=r"of must name parameters that are drawn before, \[\], got"):
        register_family("MetaNew", build_push, {1: {"fence": Computed(near, ("mass", "width"))}})
    with pytest.raises(ValueError, match="num_costs must be a whole number >= 1, got 0"):
        register_family("MetaNew", build_push, levels, num_costs=0)
    assert set(gymnasium.registry) == registered
    assert "MetaNew" not in list_families()


def test_mistakes_of_a_user() -> None:
    with pytest.raises(ValueError, match=r"task_seed must be an integer in \[0, 2\*\*32\), got -1"):
        make("MetaPush1-v0", task_seed=-1)
    register_family("MetaNothing", lambda parameters: None, {1: {"mass": Fixed(1.0)}})
    with pytest.raises(TypeError, match=r"family MetaNothing must return a gymnasium\.Env, got NoneType"):
        make("MetaNothing1-v0")
    with pytest.raises(TypeError, match="task_seed"):
        make("CartPole-v1", task_seed=1)
