"""Build the Goal and Button tasks of the CVPO paper, in which every episode begins in the same way.

The numbers are those of the authors' fork of safety-gym (github.com/liuzuxin/cvpo-safe-rl,
`envs/safety-gym/safety_gym/envs/suite.py` and `xmls/`), whose Goal task is its `Button2`. Lengths are in
metres, times in seconds and angles in radians; x and y are measured from the centre of the floor. Import this
module after `import_safety_gymnasium`.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec
from safety_gymnasium.assets.geoms import Hazards
from safety_gymnasium.assets.mocaps import Gremlins
from safety_gymnasium.tasks.safe_navigation.button.button_level0 import ButtonLevel0

from fsrl_ext.env.display import require_display, require_offscreen_gl
from fsrl_ext.env.safety_gymnasium.builder import TaskBuilder
from fsrl_ext.env.safety_gymnasium.suite import NavigationEnv
from fsrl_ext.env.suite_tasks import FIXED_TASKS

# Duration of one physics step; a step of the environment has ten. safety-gymnasium's own are 0.002 and 0.004.
TIMESTEPS = {"Point": 0.006, "Car": 0.01}
_GREMLIN_TRAVEL = 0.3
# Radii that the authors' layouts keep free around centres.
_BUTTON_KEEPOUT, _GREMLIN_KEEPOUT, _HAZARD_KEEPOUT = 0.2, 0.35, 0.0
# Seeds the order of the goal buttons after the first one.
_ORDER_SEED = 0

Places = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class FixedLayout:
    """Places everything at the beginning of an episode.

    The start and the first goal are what the authors' code draws at every reset, because it seeds NumPy's
    generator with 0 before it draws them.

    :param start: x and y of the robot.
    :param rotation: the robot's angle.
    :param buttons: centres of the buttons.
    :param first_goal: number of the button that is the first goal.
    :param hazards: centres of the hazards.
    :param hazard_size: radius of a hazard.
    :param gremlins: centres of the circles on which gremlins move.
    """

    start: tuple[float, float]
    rotation: float
    buttons: Places
    first_goal: int
    hazards: Places
    hazard_size: float
    gremlins: Places = ()


LAYOUTS: Mapping[str, FixedLayout] = {
    "GoalFixed": FixedLayout(
        start=(0.13667781099650922, 0.6025302258427745),
        rotation=2.866077065248105,
        buttons=((-1.1, -1.3), (1.8, -1.5), (-1.4, 0.6), (1.0, 1.3)),
        first_goal=2,
        hazards=(
            *((0.1, -1.9), (-0.2, 1.7), (0.3, 0.1), (2.0, -0.1), (-1.8, 0.2), (-0.1, -1.2)),
            *((0.0, 1.3), (1.1, 0.0), (-1.0, 0.0), (0.2, -0.9), (-1.1, 1.1)),
        ),
        hazard_size=0.22,
    ),
    "ButtonFixed": FixedLayout(
        start=(-0.7246654885899656, 0.9537498685202039),
        rotation=2.234380729504747,
        buttons=((-1.3, -1.3), (1.3, -1.3), (-1.3, 1.3), (1.3, 1.3)),
        first_goal=0,
        hazards=((0.0, -1.9), (0.0, 1.9), (0.0, 0.0), (1.9, 0.0), (-1.9, 0.0)),
        hazard_size=0.17,
        gremlins=((0.0, -1.3), (0.0, 1.3), (1.3, 0.0), (-1.3, 0.0)),
    ),
}


class FixedButtons(ButtonLevel0):
    """Asks the robot to press one goal button after the other, without entering hazards.

    The reward is the progress towards the goal button, plus 1 for each press of it. A press makes another
    button the goal, or the same button again. A step costs 1 in a hazard, at a wrong button or at a gremlin.
    In the 10 steps after a press, buttons cost nothing, and the lidar does not show them.

    :param config: safety-gymnasium's configuration of the task.
    :param layout: where everything is.
    """

    def __init__(self, config: dict[str, Any], layout: FixedLayout) -> None:
        super().__init__(config=config)
        self.layout = layout
        self.mechanism_conf.randomize_layout = False
        self.agent.locations, self.agent.rot = [layout.start], layout.rotation
        self.buttons.num, self.buttons.keepout = len(layout.buttons), _BUTTON_KEEPOUT
        self.buttons.locations = list(layout.buttons)
        self.buttons.is_constrained = True
        # The mark of the goal is moved to a button before the first observation. Until then it may lie
        # anywhere, and must not keep other objects away.
        self.goal.locations, self.goal.keepout = [(0.0, 0.0)], 0.0
        self._add_geoms(
            Hazards(
                num=len(layout.hazards),
                size=layout.hazard_size,
                keepout=_HAZARD_KEEPOUT,
                locations=list(layout.hazards),
            )
        )
        if layout.gremlins:
            self._add_mocaps(
                Gremlins(
                    num=len(layout.gremlins),
                    travel=_GREMLIN_TRAVEL,
                    keepout=_GREMLIN_KEEPOUT,
                    locations=list(layout.gremlins),
                )
            )
        self._later_goals: np.random.RandomState | None = None

    def _build(self) -> None:
        super()._build()
        self.model.opt.timestep = TIMESTEPS[self.agent_name]
        self._later_goals = None

    def build_goal_button(self) -> None:
        """Make the next button of the constant order the goal.

        The package's method draws from the generator that also draws at every step, so that the order would
        depend on the steps at which buttons are pressed.
        """
        if self._later_goals is None:
            self._later_goals = np.random.RandomState(_ORDER_SEED)
            self.buttons.goal_button = self.layout.first_goal
        else:
            self.buttons.goal_button = int(self._later_goals.choice(self.buttons.num))
        place = self.buttons.pos[self.buttons.goal_button][:2]
        self.world_info.world_config_dict["geoms"]["goal"]["pos"][:2] = place
        self._set_goal(place)
        mujoco.mj_forward(self.model, self.data)


def make_fixed_env(
    env_id: str,
    *,
    render_mode: str | None,
    max_episode_steps: int | None,
    spec: EnvSpec | None = None,
    fast: bool = True,
    config: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> NavigationEnv:
    """Build one of `FIXED_TASKS`.

    :param fast: see `NavigationEnv`.
    :param config: entries of safety-gymnasium's configuration, for example "sim_conf.frameskip_binom_n".
    :param kwargs: passed to safety-gymnasium's `Builder`.
    """
    if render_mode == "human":
        require_display(env_id)
    elif render_mode is not None:
        require_offscreen_gl(env_id)
    agent, kind = FIXED_TASKS[env_id]
    return NavigationEnv(
        env_id=env_id,
        arguments={"task_id": env_id, "config": {**(config or {}), "agent_name": agent}, **kwargs},
        builder=functools.partial(
            TaskBuilder, make_task=functools.partial(FixedButtons, layout=LAYOUTS[kind])
        ),
        max_episode_steps=max_episode_steps,
        render_mode=render_mode,
        spec=spec,
        fast=fast,
    )
