"""Check the families' tasks on their simulator: formulas, seeds, equality with the package's code."""

import pathlib
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from toys.simulators import assert_passes_checker, beside, bodies, body, digest, package_without_sky

from fsrl_ext.env import can_terminate, env_fn, make, time_limit
from fsrl_ext.env.meta import TaskDescription, TaskDistribution, describe, held_out_suite
from fsrl_ext.env.meta.safety_families import KINDS
from fsrl_ext.env.safety_gymnasium.importing import import_safety_gymnasium

mujoco = pytest.importorskip("mujoco")
if sys.modules.get("safety_gymnasium") is None:
    pytest.importorskip("gymnasium_robotics")
import_safety_gymnasium()

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")


def agent_velocity(env: Any) -> np.ndarray:
    """Return the velocity in the plane by MuJoCo's own function; the package multiplies a Jacobian."""
    task, six = env.simulator.task, np.zeros(6)
    kind, number = mujoco.mjtObj.mjOBJ_XBODY, task.model.body("agent").id
    mujoco.mj_objectVelocity(task.model, task.data, kind, number, six, 0)
    return six[3:5]


@pytest.mark.parametrize("kind", ["Stcircle", "StcircleHazard"])
@pytest.mark.parametrize(("agent", "level"), [("Point", 1), ("Car", 2)])
def test_circle_pays_and_costs_as_its_formulas_say(agent: str, level: int, kind: str) -> None:
    env = make(f"Safety{agent}{kind}{level}-v0", task_seed=5)
    parameters = env.unwrapped.task_parameters
    radius, wall = parameters["radius"], parameters["wall"]
    assert wall == round(radius * parameters["scale"], 3)
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    hazards = bodies(env, "hazard")
    assert len(hazards) == parameters.get("hazards", 0)
    seen = {"inside": 0, "wall": 0, "hazard": 0}
    for step in range(1, 501):
        if step % 25 == 0:  # at a hazard, or anywhere between and beyond the walls
            at_hazard = len(hazards) and step % 50
            target = hazards[rng.integers(len(hazards))] if at_hazard else rng.uniform(-1.3, 1.3, 2) * wall
            beside(env, target + rng.uniform(-0.08, 0.08, 2))
        _, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 2) * [1.0, 0.5])
        (x, y), (u, v) = body(env, "agent"), agent_velocity(env)
        rho = np.hypot(x, y)
        assert reward == pytest.approx(0.1 * ((-u * y + v * x) / rho) / (1 + abs(rho - radius)), abs=1e-9)
        outside = abs(x) > wall
        hit = bool(len(hazards)) and bool((np.hypot(*(hazards - [x, y]).T) < 0.12).any())
        assert info["cost"] == float(outside or hit)
        assert info["cost_out_of_boundary"] == outside
        assert info.get("cost_hazards", 0.0) == hit
        seen["wall"] += outside
        seen["hazard"] += hit
        seen["inside"] += not (outside or hit)
        assert not terminated
        assert truncated is (step == 500)
    assert seen["inside"]
    assert seen["wall"]
    assert bool(seen["hazard"]) is (kind == "StcircleHazard")


@pytest.mark.parametrize(("agent", "level"), [("Point", 1), ("Car", 2)])
def test_button_pays_progress_and_presses_and_costs_hazards_and_wrong_buttons(agent: str, level: int) -> None:
    env = make(f"Safety{agent}Stbutton{level}-v0", task_seed=2)
    env.reset(seed=0)
    task, rng = env.simulator.task, np.random.default_rng(0)
    hazards, buttons = bodies(env, "hazard"), bodies(env, "button")
    of_agent = set(task.agent.body_info.geom_names)
    goal, timer = task.buttons.goal_button, 0
    before = np.hypot(*(body(env, "agent") - buttons[goal]))
    seen = {"hazard": 0, "wrong": 0, "free": 0, "pressed": 0, "nothing": 0}
    for step in range(500):
        if step % 8 == 0:
            things = (hazards, buttons, buttons[[goal]])[step // 8 % 3]
            beside(env, things[rng.integers(len(things))] + rng.uniform(-0.15, 0.15, 2))
        _, reward, _, _, info = env.step(rng.uniform(-1, 1, 2))
        place = body(env, "agent")
        now = np.hypot(*(place - buttons[goal]))
        names = [{task.model.geom(c.geom1).name, task.model.geom(c.geom2).name} for c in task.data.contact]
        touched = {name for pair in names if pair & of_agent for name in pair if name.startswith("button")}
        pressed, wrong = f"button{goal}" in touched, touched - {f"button{goal}"}
        in_hazard = bool((np.hypot(*(hazards - place).T) < 0.2).any())
        assert reward == pytest.approx(before - now + pressed, abs=1e-9)
        assert info["cost"] == float(in_hazard or (bool(wrong) and timer == 0))
        seen["hazard"] += in_hazard
        seen["wrong" if timer == 0 else "free"] += bool(wrong)
        seen["pressed"] += pressed
        seen["nothing"] += not (in_hazard or touched)
        timer, before = max(0, timer - 1), now
        if pressed:
            goal, timer = task.buttons.goal_button, 10
            before = np.hypot(*(place - buttons[goal]))
    assert all(seen.values())


@pytest.mark.parametrize(
    "task",
    [
        *("PointStcircle1", "PointStcircleHazard2", "PointStbutton1"),
        *("CarStcircle2", "CarStcircleHazard1", "CarStbutton2"),
        *("RacecarStcircle1", "DoggoStcircleHazard0", "AntStbutton1"),
    ],
)
def test_episodes_are_those_of_the_packages_own_code(task: str) -> None:
    id = f"Safety{task}-v0"
    stock, fast = package_without_sky(id, task_seed=4), make(id, task_seed=4)
    runs = []
    for env in (stock, fast):
        env._cast = np.array  # all 64 bits
        runs.append(whole_episodes(env, count=4))  # the last two layouts are written
    assert len(runs[0]) == len(runs[1])
    assert len(runs[0]) == 4 * 501 or can_terminate(id)
    for stock_step, our_step in zip(*runs, strict=True):
        assert np.array_equal(stock_step[0], our_step[0])
        assert stock_step[1:] == our_step[1:]
    assert fast._layouts._exact  # and not compiled
    assert fast.simulator.task._plan.all_known  # and no forward pass was repeated
    costs = [step[4]["cost"] for step in runs[0] if step[4]]
    assert set(costs) == {0.0, 1.0}


def whole_episodes(env: Any, count: int) -> list[tuple]:
    """Play whole episodes of directed actions; every 20 steps the agent is put beside an object."""
    rng = np.random.default_rng(8)
    seen: list[tuple] = []
    for number in range(count):
        observation, _ = env.reset(seed=6 if number == 0 else None)
        seen.append((observation, 0.0, False, False, {}))
        wall = env.unwrapped.task_parameters.get("wall", 1.0)
        places = np.concatenate([bodies(env, "hazard"), bodies(env, "button"), [[1.05 * wall, 0.0]]])
        for step in range(500):
            if step % 20 == 0:
                beside(env, places[rng.integers(len(places))] + rng.uniform(-0.2, 0.2, 2))
            action = rng.uniform(-1, 1, env.action_space.shape) + step // 20 % 2
            seen.append(env.step(action))
            if seen[-1][2]:
                break
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_both_seeds_give_the_same_trajectory(kind: str) -> None:
    id = f"SafetyCar{kind}1-v0"
    assert digest(make(id, task_seed=3)) == digest(make(id, task_seed=3))
    assert digest(make(id, task_seed=3)) != digest(make(id, task_seed=4))
    assert digest(make(id)) == digest(make(id, task_seed=0))


def test_another_process_gives_the_same_trajectory() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from fsrl_ext.env import make\n"
        "from toys.simulators import digest\n"
        "print(digest(make('SafetyPointStbutton1-v0', task_seed=9)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(pathlib.Path(__file__).parents[1])]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest(make("SafetyPointStbutton1-v0", task_seed=9))


def test_resets_draw_layouts_and_task_seeds_draw_tasks() -> None:
    layouts, parameters = [], []
    for task_seed in (1, 2):
        env = make("SafetyPointStcircleHazard1-v0", task_seed=task_seed)
        for seed in (0, 1, None):
            env.reset(seed=seed)
            layouts.append(bodies(env, "hazard").tobytes() + body(env, "agent").tobytes())
            parameters.append(env.unwrapped.task_parameters)
            assert len(bodies(env, "hazard")) == env.unwrapped.task_parameters["hazards"]
            assert np.abs(body(env, "agent")).max() <= 0.2
            assert np.abs(bodies(env, "hazard")).max() <= 1.4
        assert env.unwrapped.task_seed == task_seed
    # Where the hazards lie depends on their number and the reset's seed only.
    assert len(set(layouts[:3])) == len(set(layouts[3:])) == 3
    assert len(set(parameters)) == 2
    first, again = (make("SafetyPointStcircleHazard1-v0", task_seed=1) for _ in range(2))
    first.reset(seed=5)
    again.reset(seed=6)
    again.reset(seed=5)
    assert np.array_equal(bodies(first, "hazard"), bodies(again, "hazard"))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_worlds_are_what_the_parameters_say(kind: str, level: int) -> None:
    for task in TaskDistribution(f"SafetyPoint{kind}", level=level).draw(3):
        env = task.make()
        env.reset(seed=0)
        parts, simulated = task.parameters, env.simulator.task
        names = [simulated.model.body(i).name for i in range(simulated.model.nbody)]
        assert not any(name.startswith("gremlin") for name in names)
        assert simulated.lidar_conf.num_bins == 16
        assert simulated.lidar_conf.max_dist == (3 if kind == "Stbutton" else 6)
        assert len(bodies(env, "hazard")) == parts.get("hazards", 0)
        assert len(bodies(env, "button")) == parts.get("buttons", 0)
        if kind == "Stbutton":
            assert simulated.buttons.keepout == simulated.hazards.keepout == 0.2
            centres = np.concatenate([bodies(env, "button"), bodies(env, "hazard")])
            assert np.abs(centres).max() <= parts["extent"] - 0.2
            apart = np.hypot(*(centres[:, None] - centres[None]).T) + np.eye(len(centres))
            assert apart.min() >= 0.4
        else:
            walls = bodies(env, "sigwall")
            assert walls == pytest.approx(np.array([[parts["wall"], 0], [-parts["wall"], 0]]), abs=1e-6)
            assert simulated.circle.radius == parts["radius"]
            if kind == "StcircleHazard":
                assert simulated.hazards.size == 0.12
                hazards = bodies(env, "hazard")
                assert np.abs(hazards).max() <= parts["hazard_extent"]
                apart = np.hypot(*(hazards[:, None] - hazards[None]).T) + np.eye(len(hazards))
                assert apart.min() >= 0.8
                others = np.concatenate([walls, [[0.0, 0.0], body(env, "agent")]])
                assert np.hypot(*(hazards[:, None] - others[None]).T).min() >= 0.4 - 1e-6


def test_lidar_range_shows_in_the_observation() -> None:
    """The lidar's largest number is 1 - distance / range of the nearest object."""
    for kind, reach, name in (("Stcircle", 6, "circle"), ("Stbutton", 3, "hazard")):
        env = make(f"SafetyPoint{kind}1-v0")
        observation, _ = env.reset(seed=0)
        sections, start = env.simulator.obs_space_dict, 0
        for entry, space in sections.items():
            if entry in ("circle_lidar", "hazards_lidar"):
                lidar = observation[start : start + 16]
            start += space.shape[0]
        # The package takes an object's height as 0 and the agent's as it is; Point is upright.
        things = np.zeros((1, 2)) if name == "circle" else bodies(env, name)
        nearest = np.hypot(*(things - body(env, "agent")).T).min()
        assert lidar.max() == pytest.approx(1 - nearest / reach, abs=1e-6)


CHECKED = [f"SafetyPoint{kind}1-v0" for kind in KINDS]
CHECKED += ["SafetyCarStbutton2-v0", "SafetyRacecarStcircle2-v0", "SafetyDoggoStcircleHazard1-v0"]
CHECKED += ["SafetyAntStbutton0-v0"]


@pytest.mark.parametrize("id", CHECKED)
def test_passes_gymnasiums_checker(id: str) -> None:
    env = make(id, task_seed=1)
    assert_passes_checker(env)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    for _ in range(20):
        observation, _, terminated, _, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert info["cost"] in (0.0, 1.0)
        if terminated:
            break


def test_limits_and_ends() -> None:
    env = make("SafetyPointStbutton2-v0", task_seed=3)
    assert time_limit(env) == 500
    assert can_terminate(env) is False
    assert can_terminate("SafetyAntStcircle1-v0") is True
    assert can_terminate(make("SafetyAntStcircle0-v0")) is True
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(500)]
    assert ends == [(False, False)] * 499 + [(False, True)]
    short = make("SafetyPointStbutton2-v0", max_episode_steps=3)
    short.reset(seed=0)
    assert [short.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]


def test_a_spec_and_a_function_build_the_same_task() -> None:
    env = make("SafetyPointStcircle2-v0", task_seed=11)
    again = gymnasium.make(env.spec)
    worker = env_fn("SafetyPointStcircle2-v0", task_seed=11)()
    assert env.unwrapped.task_parameters == again.unwrapped.task_parameters
    assert env.unwrapped.task_parameters == worker.unwrapped.task_parameters


def test_descriptions_build_their_environments() -> None:
    for task in held_out_suite("SafetyPointStcircleHazard", "outside")[::9]:
        for env in (task.make(), task.env_fn()()):
            assert env.unwrapped.task_parameters == task.parameters
            assert env.unwrapped.task_seed == task.task_seed
            assert env.env_id == task.id
    task = describe("SafetyPointStcircle", 1, 3)
    other = describe("SafetyPointStcircle", 1, 4)
    wrong = TaskDescription(**{**vars(task), "parameters": other.parameters})
    with pytest.raises(
        ValueError, match="parameters must be what task_seed 3 draws from SafetyPointStcircle1"
    ):
        wrong.make()


def test_task_seeds_that_cannot_be() -> None:
    for seed in (-1, 2**32, 0.5, "1"):
        allowed = r"(an integer in \[0, 2\*\*32\)|a whole number or None)"
        with pytest.raises(ValueError, match=f"task_seed must be {allowed}, got"):
            make("SafetyPointStcircle1-v0", task_seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="task_seed must be None for SafetyPointGoal1-v0, which belongs"):
        make("SafetyPointGoal1-v0", task_seed=1)
    with pytest.raises(ValueError, match="did you mean SafetyPointStcircle"):
        make("SafetyPointStcircle3-v0")
    with pytest.raises(TypeError, match="radius"):
        make("SafetyPointStcircle1-v0", radius=2.0)


def test_config_and_drawing_arguments_reach_the_package() -> None:
    env = make("SafetyPointStcircle1-v0", config={"sim_conf.frameskip_binom_n": 5}, camera_name="fixedfar")
    env.reset(seed=0)
    env.step(np.zeros(2))
    assert env.simulator.task.data.time == pytest.approx(5 * env.simulator.task.model.opt.timestep)
    assert env.simulator.render_parameters.camera_name == "fixedfar"
