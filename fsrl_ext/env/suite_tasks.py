"""The tasks of the two suites as a table, so that listing them imports no simulator.

`tests/env` compares it with what the installed packages register.
"""

from dataclasses import dataclass

BULLET = "bullet-safety-gym"
SAFETY = "safety-gymnasium"
# Tasks of this package on safety-gymnasium's robots: `fsrl_ext.env.meta`.
META = "meta"
USER = "user"
# What builds safety-gymnasium's navigation tasks, and users' own ones.
SAFETY_BUILDER = "safety_gymnasium.builder:Builder"


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What is known of a task without building it.

    :param id: what `make` takes.
    :param suite: "bullet-safety-gym", "safety-gymnasium", "meta" or "user".
    :param horizon: steps of an episode that nothing ends early; None for no limit.
    :param can_terminate: whether an episode can end before the horizon; None if unknown. (Goal and
        Push tasks would also end if 10,000 draws found no place for the next goal; that is not
        counted.)
    :param num_costs: the number of costs per step; None if unknown.
    :param installed: whether the suite's packages are here.
    """

    id: str
    suite: str
    horizon: int | None
    can_terminate: bool | None
    num_costs: int | None
    installed: bool = True


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A package of tasks: its modules, and how to install it."""

    name: str
    modules: tuple[str, ...]
    install: str


_SAFETY = Suite(
    # Not by its own dependency list: it pins a pygame that has no wheel for Python 3.11.
    name=SAFETY,
    modules=("safety_gymnasium", "gymnasium_robotics", "mujoco", "xmltodict", "yaml"),
    install='pip install "fsrl_ext[safety]" && pip install --no-deps '
    "safety-gymnasium==1.0.0 gymnasium-robotics==1.2.2",
)

SUITES = {
    BULLET: Suite(
        name=BULLET,
        modules=("bullet_safety_gym", "pybullet"),
        install="pip install bullet-safety-gym==1.4.0",
    ),
    SAFETY: _SAFETY,
    META: _SAFETY,
}

# Steps per episode, by task and agent.
_BULLET_HORIZONS = {
    "Reach": {"Ball": 250, "Car": 500, "Ant": 1000, "Drone": 500},
    "Push": {"Ball": 250, "Car": 500},
    "Circle": {"Ball": 200, "Car": 300, "Ant": 500, "Drone": 300},
    "Run": {"Ball": 100, "Car": 200, "Ant": 200, "Drone": 200},
    "Gather": {"Ball": 250, "Car": 500, "Ant": 1000, "Drone": 500},
}
# An ant or a drone can fall over; a Gather task ends when the last apple is taken.
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
_META_KINDS = ("Stcircle", "StcircleHazard", "Stbutton")
_META_LEVELS = (0, 1, 2)
# Whether the robot can fall.
_VELOCITY_AGENTS = {
    "HalfCheetah": False,
    "Hopper": True,
    "Swimmer": False,
    "Walker2d": True,
    "Ant": True,
    "Humanoid": True,
}


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
                    # The ant dies when it touches the ground; a race ends at the goal.
                    can_terminate=agent == "Ant" or task.startswith("Race"),
                    num_costs=1,
                )
                for variant in variants
            ]
    tasks += [
        TaskInfo(
            id=f"Safety{agent}Velocity-{version}",
            suite=SAFETY,
            horizon=1000,
            can_terminate=falls,
            num_costs=1,
        )
        for version in ("v0", "v1")
        for agent, falls in _VELOCITY_AGENTS.items()
    ]
    return tasks


def _meta_tasks() -> list[TaskInfo]:
    return [
        TaskInfo(
            id=f"Safety{agent}{kind}{level}-v0",
            suite=META,
            horizon=500,
            can_terminate=agent == "Ant",
            num_costs=1,
        )
        for kind in _META_KINDS
        for level in _META_LEVELS
        for agent in _SAFETY_AGENTS
    ]


SUITE_TASKS: dict[str, TaskInfo] = {
    task.id: task for task in _bullet_tasks() + _safety_tasks() + _meta_tasks()
}
