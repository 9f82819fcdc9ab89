"""List the tasks of the suites in a table, so that a look at the list imports no simulator.

`tests/env` compares the table with what the installed packages register. The suite "safety-gymnasium" also
has the tasks of `FIXED_TASKS`, which this package builds on that one's robots.
"""

import sys
from dataclasses import dataclass

from fsrl_ext.env.discrete_optimum import DISCRETE_TASK
from fsrl_ext.env.known_optimum import HORIZON, KNOWN_OPTIMUM_TASKS
from fsrl_ext.env.two_costs import TWO_COSTS_TASK

BULLET = "bullet-safety-gym"
SAFETY = "safety-gymnasium"
# Tasks of this package on safety-gymnasium's robots: `fsrl_ext.env.meta`.
META = "meta"
# Tasks of safety-gymnasium with several agents, under ids of this package: `fsrl_ext.env.agents`.
SAFETY_AGENTS = "safety-gymnasium-agents"
# Tasks of this package without a simulator: `fsrl_ext.env.known_optimum`.
KNOWN_OPTIMUM = "known-optimum"
USER = "user"
# Entry point of safety-gymnasium's navigation tasks, and of users' own tasks of that kind.
SAFETY_BUILDER = "safety_gymnasium.builder:Builder"


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """Describes a task without building it.

    :param id: the name that `make` takes.
    :param suite: "bullet-safety-gym", "safety-gymnasium", "safety-gymnasium-agents", "meta",
        "known-optimum" or "user".
    :param horizon: steps after which an episode is truncated; None for no limit.
    :param can_terminate: whether an episode can end before the horizon; None if unknown. Goal and Push tasks
        also end where 10,000 draws give no place for the next goal, which does not count here.
    :param num_costs: the number of costs per step; None if unknown.
    :param installed: whether the suite's packages are installed.
    :param num_agents: the number of agents; `make` builds a `pettingzoo.ParallelEnv` for several.
    """

    id: str
    suite: str
    horizon: int | None
    can_terminate: bool | None
    num_costs: int | None
    installed: bool = True
    num_agents: int = 1


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Names a package of tasks, the modules that it needs, and the command that installs it.

    :param name: the package's name.
    :param modules: the modules that must be importable.
    :param install: a shell command.
    """

    name: str
    modules: tuple[str, ...]
    install: str


_SAFETY = Suite(
    # The command leaves out the package's own dependencies, which pin a pygame without wheel for Python 3.11.
    name=SAFETY,
    modules=("safety_gymnasium", "gymnasium_robotics", "mujoco", "xmltodict", "yaml"),
    install='pip install "fsrl_ext[safety]" && pip install --no-deps '
    "safety-gymnasium==1.0.0 gymnasium-robotics==1.2.2",
)

SUITES = {
    BULLET: Suite(
        name=BULLET,
        modules=("bullet_safety_gym", "pybullet"),
        # pybullet, which bullet-safety-gym requires, has no wheels for Python 3.12.
        install='pip install "fsrl_ext[bullet]"'
        + (" && pip install --no-deps bullet-safety-gym==1.4.0" if sys.version_info >= (3, 12) else ""),
    ),
    SAFETY: _SAFETY,
    SAFETY_AGENTS: _SAFETY,
    META: _SAFETY,
    KNOWN_OPTIMUM: Suite(name="fsrl_ext", modules=(), install="pip install fsrl_ext"),
}

# Horizons by task and agent.
_BULLET_HORIZONS = {
    "Reach": {"Ball": 250, "Car": 500, "Ant": 1000, "Drone": 500},
    "Push": {"Ball": 250, "Car": 500},
    "Circle": {"Ball": 200, "Car": 300, "Ant": 500, "Drone": 300},
    "Run": {"Ball": 100, "Car": 200, "Ant": 200, "Drone": 200},
    "Gather": {"Ball": 250, "Car": 500, "Ant": 1000, "Drone": 500},
}
# An ant or a drone can fall over. A Gather task ends when the last apple is taken.
_BULLET_MORTAL = ("Ant", "Drone")

_SAFETY_AGENTS = ("Point", "Car", "Doggo", "Racecar", "Ant")
_SAFETY_DEBUG_AGENTS = ("Point", "Car", "Racecar")
_SAFETY_HORIZONS = {
    **dict.fromkeys(("Button0", "Button1", "Button2"), 1000),
    **dict.fromkeys(("Push0", "Push1", "Push2"), 1000),
    **dict.fromkeys(("Goal0", "Goal1", "Goal2"), 1000),
    **dict.fromkeys(("Circle0", "Circle1", "Circle2"), 500),
    "Run0": 500,
    **dict.fromkeys(("Race0", "Race1", "Race2"), 500),
    **dict.fromkeys(("FadingEasy0", "FadingEasy1", "FadingEasy2"), 1000),
    **dict.fromkeys(("FadingHard0", "FadingHard1", "FadingHard2"), 1000),
}
_FIXED_HORIZON = 400
FIXED_TASKS = {
    f"Safety{agent}{kind}-v0": (agent, kind)
    for kind in ("GoalFixed", "ButtonFixed")
    for agent in ("Point", "Car")
}
"""Robot and layout of the tasks of the CVPO paper: `fsrl_ext.env.safety_gymnasium.fixed`."""
_META_KINDS = ("Stcircle", "StcircleHazard", "Stbutton")
_META_LEVELS = (0, 1, 2)
_META_HORIZON = 500
_VELOCITY_HORIZON = 1000
# The robots of the velocity tasks, and whether each can fall.
_VELOCITY_AGENTS = {
    "HalfCheetah": False,
    "Hopper": True,
    "Swimmer": False,
    "Walker2d": True,
    "Ant": True,
    "Humanoid": True,
}
# Robot, division among agents, and number of agents. The package writes Humanoid's division as "9|8".
_DIVISIONS = (
    ("Ant", "2x4", 2),
    ("Ant", "4x2", 4),
    ("HalfCheetah", "6x1", 6),
    ("HalfCheetah", "2x3", 2),
    ("Hopper", "3x1", 3),
    ("Humanoid", "9x8", 2),
    ("Swimmer", "2x1", 2),
    ("Walker2d", "2x3", 2),
)
DIVIDED_ROBOTS: dict[str, tuple[str, str]] = {
    f"Safety{robot}Velocity-{division}-v0": (robot, "9|8" if division == "9x8" else division)
    for robot, division, _ in _DIVISIONS
}
"""Ids of the tasks with several agents, and the robot and the division that the package calls each."""


def _bullet_tasks() -> list[TaskInfo]:
    return [
        TaskInfo(
            id=f"Safety{agent}{task}-v0",
            suite=BULLET,
            horizon=horizon,
            can_terminate=agent in _BULLET_MORTAL or task == "Gather",
            num_costs=1,
        )
        for task, horizons in _BULLET_HORIZONS.items()
        for agent, horizon in horizons.items()
    ]


def _safety_tasks() -> list[TaskInfo]:
    tasks = []
    for task, horizon in _SAFETY_HORIZONS.items():
        for agent in _SAFETY_AGENTS:
            variants = ("", "Vision", "Debug") if agent in _SAFETY_DEBUG_AGENTS else ("", "Vision")
            tasks += [
                TaskInfo(
                    id=f"Safety{agent}{task}{variant}-v0",
                    suite=SAFETY,
                    horizon=horizon,
                    # An episode ends when the ant touches the ground, and when a race reaches the goal.
                    can_terminate=agent == "Ant" or task.startswith("Race"),
                    num_costs=1,
                )
                for variant in variants
            ]
    tasks += [
        TaskInfo(
            id=f"Safety{agent}Velocity-{version}",
            suite=SAFETY,
            horizon=_VELOCITY_HORIZON,
            can_terminate=falls,
            num_costs=1,
        )
        for version in ("v0", "v1")
        for agent, falls in _VELOCITY_AGENTS.items()
    ]
    return tasks


def _fixed_tasks() -> list[TaskInfo]:
    return [
        TaskInfo(id=id, suite=SAFETY, horizon=_FIXED_HORIZON, can_terminate=False, num_costs=1)
        for id in FIXED_TASKS
    ]


def _safety_agents_tasks() -> list[TaskInfo]:
    return [
        TaskInfo(
            id=f"Safety{robot}Velocity-{division}-v0",
            suite=SAFETY_AGENTS,
            horizon=_VELOCITY_HORIZON,
            can_terminate=_VELOCITY_AGENTS[robot],
            num_costs=1,
            num_agents=num_agents,
        )
        for robot, division, num_agents in _DIVISIONS
    ]


def _meta_tasks() -> list[TaskInfo]:
    return [
        TaskInfo(
            id=f"Safety{agent}{kind}{level}-v0",
            suite=META,
            horizon=_META_HORIZON,
            can_terminate=agent == "Ant",
            num_costs=1,
        )
        for kind in _META_KINDS
        for level in _META_LEVELS
        for agent in _SAFETY_AGENTS
    ]


def _known_optimum_tasks() -> list[TaskInfo]:
    costs = {**dict.fromkeys(KNOWN_OPTIMUM_TASKS, 1), TWO_COSTS_TASK: 2, DISCRETE_TASK: 1}
    return [
        TaskInfo(id=id, suite=KNOWN_OPTIMUM, horizon=HORIZON, can_terminate=False, num_costs=count)
        for id, count in costs.items()
    ]


SUITE_TASKS: dict[str, TaskInfo] = {
    task.id: task
    for tasks in (
        _bullet_tasks,
        _safety_tasks,
        _fixed_tasks,
        _safety_agents_tasks,
        _meta_tasks,
        _known_optimum_tasks,
    )
    for task in tasks()
}

_GYMNASIUM = "Gymnasium-"


def canonical_id(id: str) -> str:
    """Return the id under which a task is listed; another id stays as it is.

    safety-gymnasium registers each task a second time with five-tuple steps, "SafetyPointGoal1Gymnasium-v0"
    beside "SafetyPointGoal1-v0". Both are the same task here.
    """
    listed = id.replace(_GYMNASIUM, "-")
    if _GYMNASIUM in id and id not in SUITE_TASKS and listed in SUITE_TASKS:
        return listed if SUITE_TASKS[listed].suite == SAFETY else id
    return id
