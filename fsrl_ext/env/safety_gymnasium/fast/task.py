"""Make steps of safety-gymnasium's tasks fast.

`quicken` gives a task faster versions of the methods that it inherits from the package. A method that a
user's own task overrides stays as it is.

Dimension letters: ``T`` physics steps.
"""

import functools
import math
from typing import Any, Protocol

import mujoco
import numpy as np
from safety_gymnasium.assets.mocaps import Gremlins
from safety_gymnasium.bases.base_task import BaseTask
from safety_gymnasium.bases.underlying import Underlying
from safety_gymnasium.tasks.safe_navigation.button.button_level0 import ButtonLevel0
from safety_gymnasium.tasks.safe_navigation.push.push_level0 import PushLevel0
from safety_gymnasium.utils.random_generator import RandomGenerator

from fsrl_ext.env.safety_gymnasium.fast.agent import indexed_agent
from fsrl_ext.env.safety_gymnasium.fast.costs import ObjectCosts
from fsrl_ext.env.safety_gymnasium.fast.lidar import Lidar
from fsrl_ext.env.safety_gymnasium.fast.observation import FlatObservation
from fsrl_ext.env.safety_gymnasium.fast.placement import QuickRandomGenerator
from fsrl_ext.env.safety_gymnasium.fast.views import Views

_NO_SENSORS = int(mujoco.mjtDisableBit.mjDSBL_SENSOR)


class Plan:
    """Keeps what a step needs to know about a task and its compiled model.

    :param task: a task whose world has been built.
    """

    def __init__(self, task: Any) -> None:
        self.views: Views = task.world.engine.views
        self.costs = ObjectCosts(task._obstacles, task.agent, self.views)
        self.observation = FlatObservation(task, self.views)
        self.gremlins = [(m, _mocap_ids(m, self.views)) for m in task._mocaps.values() if _is_gremlins(m)]
        self.only_gremlins = len(self.gremlins) == len(task._mocaps)
        # Whether only the package's own code runs between two forward passes of one step.
        self.all_known = all(_is_the_packages(o) for o in (task, task.agent, *task._obstacles))


def _is_gremlins(mocap: Any) -> bool:
    return type(mocap).move is Gremlins.move


def _mocap_ids(gremlins: Gremlins, views: Views) -> slice | list[int]:
    """Return the rows of `mocap_pos` that belong to gremlins; a slice, where possible, is written faster."""
    ids = views.model.body_mocapid
    rows = [int(ids[views.body(f"gremlin{i}mocap")]) for i in range(gremlins.num)]
    in_a_row = rows == list(range(rows[0], rows[0] + len(rows))) if rows else False
    return slice(rows[0], rows[-1] + 1) if in_a_row else rows


def _is_the_packages(instance: Any) -> bool:
    ours = (
        "safety_gymnasium.",
        "fsrl_ext.env.safety_gymnasium.fast.",
        "fsrl_ext.env.safety_gymnasium.fixed",
        "fsrl_ext.env.meta.",
        "abc",
        "builtins",
    )
    return all(kind.__module__.startswith(ours) for kind in type(instance).__mro__)


def _plan(task: Any) -> Plan:
    plan = task.__dict__.get("_plan")
    if plan is None or plan.views is not task.world.engine.views:
        plan = task._plan = Plan(task)
    return plan


def _settle(task: Any, plan: Plan) -> None:
    """Make one more `mj_forward` of a state that has had one.

    The stages before the constraint solver would repeat their results. The solver would not, because it
    starts from its last result and ends a few bits away from it. Therefore only the solver runs here, and
    `_sense` computes the sensors where they are read.

    The whole pass runs in three cases: other code may have run since, a reset came before, or the pass would
    change a quaternion (it normalises quaternions, and a second time may change the last bit again).
    """
    model, data = plan.views.model, plan.views.data
    if plan.all_known and task._forwarded and plan.views.normalised():
        mujoco.mj_fwdConstraint(model, data)
    else:
        mujoco.mj_forward(model, data)


def _sense(task: Any, plan: Plan) -> None:
    """Compute the sensors of a state whose forward passes left them out."""
    if plan.all_known and task._forwarded:
        model, data = plan.views.model, plan.views.data
        mujoco.mj_sensorPos(model, data)
        mujoco.mj_sensorVel(model, data)
        mujoco.mj_sensorAcc(model, data)


def gremlin_places(phases: np.ndarray, travel: float, size: float) -> np.ndarray:
    """Return where gremlins are steered at the times ``[T]``, as positions ``[T, 3]``.

    NumPy's sine gives an array the same bits as single numbers.
    """
    places = np.empty((len(phases), 3))
    places[:, 0], places[:, 1] = np.sin(phases) * travel, np.cos(phases) * travel
    places[:, 2] = size
    return places


def _step_with_gremlins(plan: Plan, steps: int) -> None:
    """Make physics steps, and steer the gremlins before each of them.

    The function replaces `Gremlins.move`, which looks up every gremlin by name in every physics step. It is
    exact, because times are added up as the simulator adds them. Each time is compared with the simulator's,
    in case the simulator has reset itself.
    """
    views = plan.views
    model, data, mocap_pos, timestep = views.model, views.data, views.mocap_pos, views.opt.timestep
    phases = [data.time]
    for _ in range(steps - 1):
        phases.append(phases[-1] + timestep)
    moves = [(rows, gremlin_places(np.array(phases), g.travel, g.size)) for g, rows in plan.gremlins]
    for step in range(steps):
        if data.time == phases[step]:
            for rows, places in moves:
                mocap_pos[rows] = places[step]
        else:
            for gremlins, _ in plan.gremlins:
                gremlins.move()
        mujoco.mj_step(model, data)


def _physics(task: Any, plan: Plan, steps: int) -> None:
    views = plan.views
    if not task._mocaps:
        mujoco.mj_step(views.model, views.data, steps)
    elif plan.only_gremlins:
        _step_with_gremlins(plan, steps)
    else:
        for _ in range(steps):
            for mocap in task._mocaps.values():
                mocap.move()
            mujoco.mj_step(views.model, views.data)


def simulation_forward(task: Any, action: np.ndarray) -> bool:
    """Replace a Python loop of physics steps that compute sensors.

    The replacement is exact, because nothing in the physics reads a sensor.
    """
    if task.debug or task.action_noise:
        return Underlying.simulation_forward(task, action)
    plan = _plan(task)
    model, data = plan.views.model, plan.views.data
    task.agent.apply_action(action)
    conf = task.sim_conf
    steps = task.random_generator.binomial(conf.frameskip_binom_n, conf.frameskip_binom_p)
    flags = plan.views.opt.disableflags
    plan.views.opt.disableflags = flags | _NO_SENSORS
    try:
        _physics(task, plan, steps)
        if plan.all_known:
            mujoco.mj_forward(model, data)
    finally:
        plan.views.opt.disableflags = flags
    if not plan.all_known:
        mujoco.mj_forward(model, data)
    task._forwarded = True
    return False


def calculate_cost(task: Any) -> dict[str, Any]:
    """Replace the package's sum over objects; see `ObjectCosts` and `_settle`."""
    if task._is_load_static_geoms:
        return BaseTask.calculate_cost(task)
    plan = _plan(task)
    _settle(task, plan)
    return plan.costs()


def update_layout(task: Any) -> None:
    """Replace lookups by name; see `_settle`."""
    plan = _plan(task)
    _settle(task, plan)
    for name in task.world_info.layout:
        if "gremlin" not in name:
            task.world_info.layout[name] = plan.views.xpos[plan.views.body(name), :2].copy()


def obs(task: Any) -> Any:
    """Replace the package's dictionary of arrays; see `FlatObservation`."""
    plan = _plan(task)
    if not plan.observation.possible():
        return BaseTask.obs(task)
    _settle(task, plan)
    _sense(task, plan)
    return plan.observation()


def button_obs(task: Any) -> Any:
    """Replace as `obs` does; the lidar does not show the buttons while the timer runs."""
    plan = _plan(task)
    if not plan.observation.possible():
        return ButtonLevel0.obs(task)
    observation = obs(task)
    if task.buttons.timer != 0:
        observation[plan.observation.section("buttons_lidar")] = 0.0
    return observation


def pseudo_lidar(task: Any, positions: Any) -> np.ndarray:
    """Replace the package's loop over objects; see `Lidar`."""
    conf = task.lidar_conf
    if conf.max_dist is None:
        return BaseTask._obs_lidar_pseudo(task, positions)
    views = _plan(task).views
    rows = np.array(positions, dtype=np.float64, ndmin=2)
    places = np.zeros((len(rows), 3))
    places[:, :2] = rows[:, :2]
    lidar = Lidar(len(places), conf.num_bins, conf.max_dist, conf.alias)
    marked, closeness = lidar.look(places, views.agent_pos, views.agent_mat)
    seen = np.zeros(conf.num_bins)
    np.maximum.at(seen, marked.ravel(), closeness.ravel())
    return seen


def dist_goal(task: Any) -> np.float64:
    """Replace a lookup by name."""
    views = _plan(task).views
    return task.agent.dist_xy(views.xpos[views.body("goal")])


def _distance(a: np.ndarray, b: np.ndarray) -> np.float64:
    """Replace `np.sqrt(np.sum(np.square(a - b)))` of ``[3]``; NumPy sums three numbers from the left."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    x, y, z = ax - bx, ay - by, az - bz
    return np.float64(math.sqrt(x * x + y * y + z * z))


def dist_box(task: Any) -> np.float64:
    """Replace lookups by name."""
    views = _plan(task).views
    return _distance(views.xpos[views.body("push_box")], views.agent_pos)


def dist_box_goal(task: Any) -> np.float64:
    """Replace lookups by name."""
    views = _plan(task).views
    return _distance(views.xpos[views.body("push_box")], views.xpos[views.body("goal")])


def button_reached(task: Any) -> bool:
    """Replace lookups of names per contact; see `Contacts`."""
    goal = f"button{task.buttons.goal_button}"
    return any(goal in pair for pair in _plan(task).costs.contacts.with_agent())


def _reset_by(stock: Any) -> Any:
    def reset(task: Any) -> None:
        task._forwarded = False  # the reset may set joints, as the Ant's does
        stock(task)

    return reset


class _Replaces(Protocol):
    def __call__(self, task: Any, *args: Any) -> Any: ...


# Names, the package's methods or properties, and what replaces them in tasks that inherit them.
_FASTER: list[tuple[str, Any, _Replaces]] = [
    ("simulation_forward", Underlying.simulation_forward, simulation_forward),
    ("calculate_cost", BaseTask.calculate_cost, calculate_cost),
    ("update_layout", Underlying.update_layout, update_layout),
    ("obs", BaseTask.obs, obs),
    ("obs", ButtonLevel0.obs, button_obs),
    ("_obs_lidar_pseudo", BaseTask._obs_lidar_pseudo, pseudo_lidar),
    ("dist_goal", BaseTask.dist_goal, dist_goal),
    ("dist_box", PushLevel0.dist_box, dist_box),
    ("dist_box_goal", PushLevel0.dist_box_goal, dist_box_goal),
    ("goal_achieved", ButtonLevel0.goal_achieved, button_reached),
]


@functools.cache
def quick_task(kind: type[BaseTask]) -> type[BaseTask]:
    """Return the class `kind` of tasks with faster versions of inherited methods, under the same name."""
    methods: dict[str, Any] = {"reset": _reset_by(kind.reset), "_forwarded": False, "__module__": __name__}
    for name, stock, faster in _FASTER:
        if getattr(kind, name, None) is stock:
            methods[name] = property(faster) if isinstance(stock, property) else faster
    return type(kind.__name__, (kind,), methods)


def quicken(task: BaseTask) -> None:
    """Make a task fast, in place, before the task builds its first world.

    The task's world must hold an `IndexedEngine`.
    """
    kind: Any = type(task)
    task.__class__ = quick_task(kind)
    agent_kind: Any = type(task.agent)
    task.agent.__class__ = indexed_agent(agent_kind)
    if type(task.random_generator) is RandomGenerator:
        task.random_generator.__class__ = QuickRandomGenerator
