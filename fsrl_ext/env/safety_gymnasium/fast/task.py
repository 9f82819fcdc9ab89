"""Steps of safety-gymnasium's tasks without waste.

`quicken` gives a task faster versions of methods that it inherits from the package, and only of
those: what a user's own task overrides stays as it is.
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
    """What is known about a task and its compiled model, so that a step need not find out.

    :param task: a task whose world has been built.
    """

    def __init__(self, task: Any) -> None:
        self.views: Views = task.world.engine.views
        self.costs = ObjectCosts(task._obstacles, task.agent, self.views)
        self.observation = FlatObservation(task, self.views)
        self.gremlins = [(m, _mocap_ids(m, self.views)) for m in task._mocaps.values() if _is_gremlins(m)]
        self.only_gremlins = len(self.gremlins) == len(task._mocaps)
        # Between two forward passes of one step, only the package's own code has run.
        self.all_known = all(_is_the_packages(o) for o in (task, task.agent, *task._obstacles))


def _is_gremlins(mocap: Any) -> bool:
    return type(mocap).move is Gremlins.move


def _mocap_ids(gremlins: Gremlins, views: Views) -> slice | list[int]:
    """The rows of `mocap_pos` that belong to some gremlins; a slice is written faster."""
    ids = views.model.body_mocapid
    rows = [int(ids[views.body(f"gremlin{i}mocap")]) for i in range(gremlins.num)]
    in_a_row = rows == list(range(rows[0], rows[0] + len(rows))) if rows else False
    return slice(rows[0], rows[-1] + 1) if in_a_row else rows


def _is_the_packages(instance: Any) -> bool:
    ours = (
        "safety_gymnasium.",
        "fsrl_ext.env.safety_gymnasium.fast.",
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
    """One more `mj_forward` of a state that has had one.

    Its stages up to the constraint solver would repeat themselves. The solver would not: it starts
    from its last result, and so ends a few bits away from it. Only that runs, and the sensors when
    they are read. All of it does where other code has run since, after a reset, and where the pass
    would move a quaternion (it normalises them, and a second time can move the last bit again).
    """
    model, data = plan.views.model, plan.views.data
    if plan.all_known and task._forwarded and plan.views.normalised():
        mujoco.mj_fwdConstraint(model, data)
    else:
        mujoco.mj_forward(model, data)


def _sense(task: Any, plan: Plan) -> None:
    """Compute the sensors of a state whose forward passes went without."""
    if plan.all_known and task._forwarded:
        model, data = plan.views.model, plan.views.data
        mujoco.mj_sensorPos(model, data)
        mujoco.mj_sensorVel(model, data)
        mujoco.mj_sensorAcc(model, data)


def gremlin_places(phases: np.ndarray, travel: float, size: float) -> np.ndarray:
    """Where gremlins are steered at some times, ``[T, 3]``; NumPy's sine is the same for many numbers."""
    places = np.empty((len(phases), 3))
    places[:, 0], places[:, 1] = np.sin(phases) * travel, np.cos(phases) * travel
    places[:, 2] = size
    return places


def _step_with_gremlins(plan: Plan, steps: int) -> None:
    """Physics steps, before each of which the gremlins are steered.

    Replaces `Gremlins.move`, which looks up every gremlin by name, per sub-step. Exact: the times
    are added up as the simulator adds them, and looked at again in case it resets itself.
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
    """Replaces a Python loop of steps that compute sensors. Exact: nothing in physics reads a sensor."""
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
    """Replaces the stock sum over objects; see `ObjectCosts` and `_settle`."""
    if task._is_load_static_geoms:
        return BaseTask.calculate_cost(task)
    plan = _plan(task)
    _settle(task, plan)
    return plan.costs()


def update_layout(task: Any) -> None:
    """Replaces lookups by name; see `_settle`."""
    plan = _plan(task)
    _settle(task, plan)
    for name in task.world_info.layout:
        if "gremlin" not in name:
            task.world_info.layout[name] = plan.views.xpos[plan.views.body(name), :2].copy()


def obs(task: Any) -> Any:
    """Replaces the stock dictionary of arrays; see `FlatObservation`."""
    plan = _plan(task)
    if not plan.observation.possible():
        return BaseTask.obs(task)
    _settle(task, plan)
    _sense(task, plan)
    return plan.observation()


def button_obs(task: Any) -> Any:
    """As `obs`: the buttons are dark while the timer runs."""
    plan = _plan(task)
    if not plan.observation.possible():
        return ButtonLevel0.obs(task)
    observation = obs(task)
    if task.buttons.timer != 0:
        observation[plan.observation.section("buttons_lidar")] = 0.0
    return observation


def pseudo_lidar(task: Any, positions: Any) -> np.ndarray:
    """Replaces the loop over objects; see `Lidar`."""
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
    """Replaces a lookup by name."""
    views = _plan(task).views
    return task.agent.dist_xy(views.xpos[views.body("goal")])


def _distance(a: np.ndarray, b: np.ndarray) -> np.float64:
    """Replaces `np.sqrt(np.sum(np.square(a - b)))` of ``[3]``; NumPy sums three from the left."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    x, y, z = ax - bx, ay - by, az - bz
    return np.float64(math.sqrt(x * x + y * y + z * z))


def dist_box(task: Any) -> np.float64:
    """Replaces lookups by name."""
    views = _plan(task).views
    return _distance(views.xpos[views.body("push_box")], views.agent_pos)


def dist_box_goal(task: Any) -> np.float64:
    """Replaces lookups by name."""
    views = _plan(task).views
    return _distance(views.xpos[views.body("push_box")], views.xpos[views.body("goal")])


def button_reached(task: Any) -> bool:
    """Replaces names looked up per contact; see `Contacts`."""
    goal = f"button{task.buttons.goal_button}"
    return any(goal in pair for pair in _plan(task).costs.contacts.with_agent())


def _reset_by(stock: Any) -> Any:
    def reset(task: Any) -> None:
        task._forwarded = False  # what follows may set joints, as the Ant does
        stock(task)

    return reset


class _Replaces(Protocol):
    def __call__(self, task: Any, *args: Any) -> Any: ...


# The package's method, or property, and what replaces it in tasks that inherit it.
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
    """The class of tasks `kind` with faster versions of what it inherits, under its own name."""
    methods: dict[str, Any] = {"reset": _reset_by(kind.reset), "_forwarded": False, "__module__": __name__}
    for name, stock, faster in _FASTER:
        if getattr(kind, name, None) is stock:
            methods[name] = property(faster) if isinstance(stock, property) else faster
    return type(kind.__name__, (kind,), methods)


def quicken(task: BaseTask) -> None:
    """Make a task fast, in place, before it builds its first world.

    Its world must hold an `IndexedEngine`.
    """
    kind: Any = type(task)
    task.__class__ = quick_task(kind)
    agent_kind: Any = type(task.agent)
    task.agent.__class__ = indexed_agent(agent_kind)
    if type(task.random_generator) is RandomGenerator:
        task.random_generator.__class__ = QuickRandomGenerator
