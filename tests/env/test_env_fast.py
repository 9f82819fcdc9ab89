"""Compare some fast navigation tasks with the package's own code; a benchmark compares all of them."""

import importlib.util
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from toys.simulators import package_without_sky

from fsrl_ext.env import make
from fsrl_ext.env.meta.safety_families import AGENTS
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium

pytest.importorskip("mujoco")
if sys.modules.get("safety_gymnasium") is None:
    pytest.importorskip("gymnasium_robotics")
import_safety_gymnasium()

import safety_gymnasium  # noqa: E402
from safety_gymnasium.bases.base_task import BaseTask  # noqa: E402
from safety_gymnasium.tasks.safe_navigation.goal.goal_level1 import GoalLevel1  # noqa: E402
from safety_gymnasium.utils.random_generator import RandomGenerator  # noqa: E402
from safety_gymnasium.world import World  # noqa: E402

from fsrl_ext.env.safety_gymnasium.fast import layout as layout_module  # noqa: E402
from fsrl_ext.env.safety_gymnasium.fast.costs import ObjectCosts  # noqa: E402
from fsrl_ext.env.safety_gymnasium.fast.layout import same_model  # noqa: E402
from fsrl_ext.env.safety_gymnasium.fast.lidar import Lidar  # noqa: E402
from fsrl_ext.env.safety_gymnasium.fast.placement import QuickRandomGenerator  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")


def benchmark_module() -> Any:
    """Import `benchmarks/environment_equality.py`, which is no package."""
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "environment_equality.py"
    spec = importlib.util.spec_from_file_location("environment_equality", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


equality = benchmark_module()


def assert_same_episodes(task: str, *, mode: str = "script", seed: int = 3, steps: int = 120) -> Any:
    runs = []
    for env in (package_without_sky(task), make(task)):
        tasks = env.simulator
        runs.append(
            equality.episodes(
                env,
                equality.our_step,
                lambda simulator=tasks: simulator.task,
                mode=mode,
                seed=seed,
                count=4,
                steps=steps,
            )
        )
    assert equality.difference(*runs) is None
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(*runs, strict=True))
    return env


@pytest.mark.parametrize(
    "task",
    [
        *("PointGoal1", "PointGoal2", "PointButton1", "CarButton2", "PointPush1", "CarPush2"),
        *("RacecarCircle2", "DoggoGoal1", "AntButton0", "AntRun0", "PointCircle1", "CarFadingEasy1"),
    ],
)
def test_scripted_episodes_are_the_packages(task: str) -> None:
    env = assert_same_episodes(f"Safety{task}-v0")
    assert env._layouts._exact  # the last two episodes were written, not compiled


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("task", ["Goal2", "Button2", "Push2", "Circle2", "Race2"])
def test_a_written_model_is_the_compiled_one(agent: str, task: str) -> None:
    env = make(f"Safety{agent}{task}-v0")
    for seed in range(4):
        env.reset(seed=seed)
        world, layout = env.simulator.task.world, env._layouts._layout
        written = layout.model
        if seed:
            layout.write(world)
            World.build(world)
            assert world.model is not written
            assert same_model(world.model, written)
    assert env._layouts._exact


@pytest.mark.parametrize("task", ["Goal2", "Button1", "Push1", "Circle1", "Race2"])
def test_layouts_take_the_same_numbers_from_the_stream(task: str) -> None:
    env = make(f"SafetyPoint{task}-v0")
    env.reset(seed=0)
    known = env.simulator.task.random_generator
    stock, quick = RandomGenerator(), QuickRandomGenerator()
    for generator in (stock, quick):
        generator.set_placements_info(known.placements, known.placements_extents, known.placements_margin)
        generator.set_random_seed(11)
    for _ in range(3):
        expected, layout = stock.build_layout(), quick.build_layout()
        assert list(expected) == list(layout)
        assert all(np.array_equal(expected[name], layout[name]) for name in expected)
        if "goal" in expected:
            assert stock.sample_goal_position() == quick.sample_goal_position()
            assert np.array_equal(stock.layout["goal"], quick.layout["goal"])
    assert stock.random_generator.random_sample() == quick.random_generator.random_sample()


@pytest.mark.parametrize("alias", [True, False])
@pytest.mark.parametrize("bins", [16, 5])
@pytest.mark.parametrize("count", [1, 2, 9, 17])
def test_lidar_is_the_packages(count: int, bins: int, alias: bool) -> None:
    env = package_without_sky("SafetyPointGoal0-v0")
    env.reset(seed=0)
    task = env.simulator.task
    rng = np.random.default_rng(count)
    lidar = Lidar(count, bins, task.lidar_conf.max_dist, alias)
    for _ in range(50):
        positions = rng.uniform(-3, 3, (count, 3))
        task.lidar_conf.num_bins, task.lidar_conf.alias = bins, alias
        expected = BaseTask._obs_lidar_pseudo(task, list(positions))
        task.lidar_conf.num_bins = 16
        seen = np.zeros(bins)
        places, closeness = lidar.look(positions, task.agent.pos, task.agent.mat)
        np.maximum.at(seen, places.ravel(), closeness.ravel())
        assert np.array_equal(seen, expected)
        env.step(env.action_space.sample())


class OwnGoalLevel1(GoalLevel1):
    """Is a user's task with more hazards, a reward from a sensor, and a goal that is moved by hand."""

    def __init__(self, config: dict) -> None:
        super().__init__(config=config)
        self.hazards.num = 3

    def calculate_reward(self) -> float:
        return super().calculate_reward() + float(self.agent.get_sensor("accelerometer")[0])

    def specific_step(self) -> None:
        self.model.body("goal").pos[0] += 1e-3


@pytest.fixture
def own_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(safety_gymnasium.tasks, "OwnGoalLevel1", OwnGoalLevel1, raising=False)
    id = "SafetyPointOwnGoal1-v0"
    config = {"config": {"agent_name": "Point"}, "task_id": id}
    entry = "safety_gymnasium.builder:Builder"
    safety_gymnasium.register(id=id, entry_point=entry, kwargs=config, max_episode_steps=400)
    yield id
    gymnasium.registry.pop(id)
    safety_gymnasium.utils.registration.safe_registry.discard(id)


def test_a_users_own_task_is_fast_and_the_same(own_task: str) -> None:
    env = assert_same_episodes(own_task)
    assert env.spec.max_episode_steps == 400
    assert not env.simulator.task._plan.all_known  # so forward passes are whole
    assert env._layouts._exact


def test_a_world_that_cannot_be_written_exactly_is_recompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(layout_module, "track_camera", lambda rotation: wrong)
    env = assert_same_episodes("SafetyPointGoal1-v0", steps=20)
    assert env._layouts._exact is False


def test_another_set_of_objects_is_recompiled() -> None:
    env = make("SafetyPointGoal1-v0")
    for number in (8, 8, 8, 4, 4, 4):
        task = env.simulator.task
        task.hazards.num = number
        task.placements_conf.placements = None
        env.reset(seed=number)
        assert sum(task.model.body(i).name.startswith("hazard") for i in range(task.model.nbody)) == number


def test_a_reset_undoes_changes_of_the_model() -> None:
    env = make("SafetyPointGoal1-v0")
    for seed in range(3):
        env.reset(seed=seed)
    model = env.simulator.task.model
    pristine = model.opt.timestep, model.geom_friction.copy(), model.body_mass.copy()
    model.opt.timestep = 0.01
    model.geom_friction[:] = 0.0
    model.body_mass[:] *= 2
    env.reset(seed=3)
    assert env.simulator.task.model is model
    assert model.opt.timestep == pristine[0]
    assert np.array_equal(model.geom_friction, pristine[1])
    assert np.array_equal(model.body_mass, pristine[2])


def test_the_packages_own_code_is_one_flag_away() -> None:
    env = package_without_sky("SafetyPointButton1-v0")
    task = env.simulator.task
    assert type(task).__module__.startswith("safety_gymnasium.")
    assert type(task.agent).__module__.startswith("safety_gymnasium.")
    assert type(task.random_generator) is RandomGenerator
    assert env._layouts is None


def test_costs_name_every_object_in_contact_once_per_contact() -> None:
    env = make("SafetyPointPush2-v0")
    env.reset(seed=0)
    task = env.simulator.task
    rng, touched = np.random.default_rng(0), 0
    for _ in range(60):
        equality.put_beside_an_object(task, rng)
        env.step(env.action_space.sample())
        costs = ObjectCosts(task._obstacles, task.agent, task.world.engine.views)()
        assert costs == BaseTask.calculate_cost(task)
        touched += costs["cost_pillars"] > 0
    assert touched
