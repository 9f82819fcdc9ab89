"""Check the CVPO paper's Goal and Button tasks: places, times, rewards and costs by hand; equal bits."""

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from tianshou.env import SubprocVectorEnv
from toys.simulators import assert_passes_checker, beside, bodies, body, digest, package_without_sky

from fsrl_ext.env import can_terminate, env_fn, list_tasks, make, time_limit
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium
from fsrl_ext.env.suite_tasks import FIXED_TASKS
from fsrl_ext.experiment import make_config

pytest.importorskip("mujoco")
if sys.modules.get("safety_gymnasium") is None:
    pytest.importorskip("gymnasium_robotics")
import_safety_gymnasium()

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

GOAL_BUTTONS = [(-1.1, -1.3), (1.8, -1.5), (-1.4, 0.6), (1.0, 1.3)]
GOAL_HAZARDS = [
    *((0.1, -1.9), (-0.2, 1.7), (0.3, 0.1), (2, -0.1), (-1.8, 0.2), (-0.1, -1.2)),
    *((0, 1.3), (1.1, 0), (-1, 0), (0.2, -0.9), (-1.1, 1.1)),
]
BUTTONS = [(-1.3, -1.3), (1.3, -1.3), (-1.3, 1.3), (1.3, 1.3)]
HAZARDS = [(0, -1.9), (0, 1.9), (0, 0), (1.9, 0), (-1.9, 0)]
GREMLINS = [(0, -1.3), (0, 1.3), (1.3, 0), (-1.3, 0)]


def authors_draw(extent: float, *placed: tuple[list[Any], float]) -> tuple[np.ndarray, float, int]:
    """Draw start, rotation and first goal as the authors' engine does, which seeds with 0 at every reset.

    :param placed: buttons, hazards and gremlins: their places, and what they keep free.
    """
    stream = np.random.RandomState(0)
    others = [(np.array(place), keepout) for places, keepout in placed for place in places]
    clear = False
    while not clear:
        low, high = -extent + 0.4, extent - 0.4
        start = np.array([stream.uniform(low, high), stream.uniform(low, high)])
        clear = True
        for place, keepout in others:
            # An object in the robot's way is drawn 100 times on the same spot, and then all begins anew.
            clear = clear and bool(np.hypot(*(place - start)) >= 0.4 + keepout)
            stream.random_sample(2 if clear else 200)
            if not clear:
                break
    rotation = stream.uniform(0, 2 * np.pi)
    stream.random_sample(len(others))  # the rotations of the objects
    return start, rotation, int(stream.choice(4))


@pytest.mark.parametrize(("agent", "timestep"), [("Point", 0.006), ("Car", 0.01)])
@pytest.mark.parametrize(
    ("kind", "buttons", "hazards", "hazard_size", "gremlins", "extent"),
    [
        ("Goal", GOAL_BUTTONS, GOAL_HAZARDS, 0.22, [], 1.8),
        ("Button", BUTTONS, HAZARDS, 0.17, GREMLINS, 2.0),
    ],
)
def test_every_episode_begins_in_the_authors_layout(
    agent: str,
    timestep: float,
    kind: str,
    buttons: list[Any],
    hazards: list[Any],
    hazard_size: float,
    gremlins: list[Any],
    extent: float,
) -> None:
    env = make(f"Safety{agent}{kind}Fixed-v0")
    start, rotation, goal = authors_draw(extent, (buttons, 0.2), (hazards, 0.0), (gremlins, 0.35))
    begun = []
    for seed in (0, 1, None):
        begun.append(env.reset(seed=seed)[0])
        task = env.simulator.task
        assert body(env, "agent") == pytest.approx(start, abs=1e-8)
        matrix = task.data.body("agent").xmat.reshape(3, 3)
        assert np.arctan2(matrix[1, 0], matrix[0, 0]) == pytest.approx(rotation, abs=1e-8)
        for prefix, places in (("button", buttons), ("hazard", hazards)):
            assert bodies(env, prefix) == pytest.approx(np.array(places, float), abs=1e-8)
        moving = [body(env, f"gremlin{i}obj") for i in range(len(gremlins))]
        assert np.array(moving) == pytest.approx(np.array(gremlins, float), abs=1e-8)
        assert len(task._mocaps) == bool(gremlins)
        assert task.buttons.goal_button == goal
        assert body(env, "goal") == pytest.approx(np.array(buttons[goal]), abs=1e-8)
        assert task.model.geom("button0").size[0] == 0.1
        assert task.model.geom("hazard0").size[0] == hazard_size
        assert task.model.opt.timestep == timestep
        env.step(np.zeros(2))
        assert task.data.time == pytest.approx(10 * timestep)
        assert (task.lidar_conf.num_bins, task.lidar_conf.max_dist) == (16, 3)
    if gremlins:
        assert task.gremlins.travel == 0.3
    assert np.array_equal(begun[0], begun[1])
    assert begun[1] == pytest.approx(begun[2], abs=1e-6)  # the package's first resets differ in the last bits


def still(kind: str) -> Any:
    """Return a task with one physics step for each step, in which a contact cannot push the robot away."""
    return make(f"SafetyPoint{kind}Fixed-v0", config={"sim_conf.frameskip_binom_n": 1})


@pytest.mark.parametrize("kind", ["Goal", "Button"])
def test_rewards_and_costs_by_hand(kind: str) -> None:
    """Point stays where it is put, so every number follows from two places."""
    env = still(kind)
    goal, wrong, hazard, radius = {
        "Goal": (GOAL_BUTTONS[2], GOAL_BUTTONS[0], (0.2, -0.9), 0.22),
        "Button": (BUTTONS[0], BUTTONS[3], (0.0, 0.0), 0.17),
    }[kind]
    env.reset(seed=0)
    before = np.hypot(*(body(env, "agent") - goal))

    def put(place: Any) -> tuple[float, float]:
        beside(env, np.array(place, float))
        _, reward, terminated, _, info = env.step(np.zeros(2))
        assert not terminated
        return reward, info["cost"]

    # Inside the hazard's rim and outside of it.
    for distance, cost in ((radius - 0.001, 1.0), (radius + 0.001, 0.0)):
        place = (hazard[0] + distance, hazard[1])
        now = np.hypot(*np.subtract(place, goal))
        assert put(place) == (pytest.approx(before - now, abs=1e-6), cost)
        before = now
    # A wrong button costs; beside it nothing does. The radii are 0.1 each.
    place = (wrong[0], wrong[1] - 0.25)
    assert put(place)[1] == 0.0
    place = (wrong[0], wrong[1] - 0.19)
    assert put(place)[1] == 1.0
    # The goal button pays 1 and costs nothing.
    before = np.hypot(*(body(env, "agent") - goal))
    place = (goal[0], goal[1] - 0.19)
    reward, cost = put(place)
    assert reward == pytest.approx(1.0 + before - 0.19, abs=0.03)  # the contact pushes the robot a bit
    assert cost == 0.0
    assert env.simulator.task.buttons.timer == 10


def test_gremlins_cost() -> None:
    env = make("SafetyPointButtonFixed-v0")
    env.reset(seed=0)
    beside(env, np.add(GREMLINS[0], (0.0, 0.8)))
    assert env.step(np.zeros(2))[4]["cost"] == 0.0
    beside(env, np.add(body(env, "gremlin0obj"), (0.0, 0.12)))
    info = env.step(np.zeros(2))[4]
    assert (info["cost"], info["cost_gremlins"]) == (1.0, 1.0)


def goals_pressed(env: Any, wait: int) -> list[int]:
    """Press seven goal buttons, with ``wait`` steps between them; return their numbers."""
    env.reset()
    task, order = env.simulator.task, []
    while len(order) < 7:
        goal = task.buttons.goal_button
        order.append(goal)
        beside(env, np.add(bodies(env, "button")[goal], (0.0, 0.18)))
        assert env.step(np.zeros(2))[4].get("goal_met")
        beside(env, np.array([-0.7, -0.7]))
        for _ in range(wait):
            env.step(np.zeros(2))
    return order


@pytest.mark.parametrize("kind", ["Goal", "Button"])
def test_the_order_of_the_goals_never_changes(kind: str) -> None:
    env = still(kind)
    order = goals_pressed(env, wait=1)
    assert order == goals_pressed(env, wait=1) == goals_pressed(env, wait=5)
    assert len(set(order)) > 2


@pytest.mark.parametrize("id", FIXED_TASKS)
def test_only_the_time_limit_ends_an_episode(id: str) -> None:
    env = make(id)
    assert time_limit(env) == time_limit(gymnasium.make(id)) == 400
    assert can_terminate(env) is False
    env.reset(seed=0)
    env.action_space.seed(3)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(400)]
    assert ends == [(False, False)] * 399 + [(False, True)]


@pytest.mark.parametrize("id", FIXED_TASKS)
def test_passes_gymnasiums_checker(id: str) -> None:
    assert_passes_checker(make(id))
    registered = gymnasium.make(id)
    assert type(registered.unwrapped) is type(make(id))
    assert digest(registered) == digest(make(id))


def directed(env: Any, count: int) -> list[tuple]:
    """Play whole episodes; every 20 steps the agent is put beside an object, goals first."""
    rng = np.random.default_rng(8)
    seen: list[tuple] = []
    for number in range(count):
        observation, _ = env.reset(seed=6 if number == 0 else None)
        seen.append((observation, 0.0, False, False, {}))
        things = np.concatenate([bodies(env, name) for name in ("hazard", "button", "gremlin0obj")])
        for step in range(400):
            if step % 20 == 0:
                goal = bodies(env, "button")[env.simulator.task.buttons.goal_button]
                near = goal if step % 40 else things[rng.integers(len(things))]
                beside(env, near + rng.uniform(-0.2, 0.2, 2))
            seen.append(env.step(rng.uniform(-1, 1, 2) + step // 20 % 2))
    return seen


@pytest.mark.parametrize("id", FIXED_TASKS)
def test_episodes_are_those_of_the_packages_own_code(id: str) -> None:
    stock, fast = package_without_sky(id), make(id)
    runs = []
    for env in (stock, fast):
        env._cast = np.array  # all 64 bits
        runs.append(directed(env, count=4))  # the last two layouts are written
    assert len(runs[0]) == len(runs[1]) == 4 * 401
    for stock_step, our_step in zip(*runs, strict=True):
        assert np.array_equal(stock_step[0], our_step[0])
        assert stock_step[1:] == our_step[1:]
    assert fast._layouts._exact
    assert fast.simulator.task._plan.all_known
    assert {step[4]["cost"] for step in runs[0] if step[4]} == {0.0, 1.0}
    assert any(step[4].get("goal_met") for step in runs[0])


def test_workers_that_are_forked_and_spawned() -> None:
    id = "SafetyPointButtonFixed-v0"
    env = make(id)
    observation, _ = env.reset(seed=1)
    expected = env.step(np.array([1.0, 0.3]))
    for context in ("fork", "spawn"):
        envs = SubprocVectorEnv([env_fn(id)], context=context)
        assert np.array_equal(envs.reset(seed=1)[0][0], observation)
        step = envs.step(np.array([[1.0, 0.3]]))
        assert np.array_equal(step[0][0], expected[0])
        assert step[1][0] == expected[1]
        envs.close()


def test_the_list_and_the_defaults() -> None:
    listed = {task.id: task for task in list_tasks()}
    for id in FIXED_TASKS:
        assert (listed[id].suite, listed[id].horizon) == ("safety-gymnasium", 400)
        config = make_config("cvpo", id)
        assert config.cost_limit == (10.0,)
        assert (config.policy_config.gamma, config.policy_config.estimation_step) == (0.99, 3)
    assert make_config("cpo", "SafetyCarGoalFixed-v0").training.step_per_collect == 20_000
