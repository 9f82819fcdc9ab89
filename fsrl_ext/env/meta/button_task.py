"""Build Button tasks of a given extent, with given numbers of buttons and hazards.

Import this module after `import_safety_gymnasium`.
"""

from typing import Any

from safety_gymnasium.assets.geoms import Hazards
from safety_gymnasium.tasks.safe_navigation.button.button_level0 import ButtonLevel0

from fsrl_ext.env.meta.parameters import Parameters

# Radius [m] that a button or hazard keeps free around its centre.
_KEEPOUT = 0.2


class Stbutton(ButtonLevel0):
    """Asks the agent to press the goal button, and no other button, without entering hazards.

    The reward is the progress towards the goal button, plus 1 for each press of it. A press draws the next
    goal, which may be the same button. A step costs 1 in a hazard or at another button. In the 10 steps after
    a press, buttons cost nothing, and the lidar does not show them. No object moves.

    :param config: safety-gymnasium's configuration of the task.
    :param parameters: `extent`, `buttons` and `hazards`.
    """

    def __init__(self, config: dict[str, Any], parameters: Parameters) -> None:
        super().__init__(config=config)
        extent = parameters["extent"]
        self.placements_conf.extents = [-extent, -extent, extent, extent]
        self.buttons.num, self.buttons.keepout = parameters["buttons"], _KEEPOUT
        self.buttons.is_constrained = True
        self._add_geoms(Hazards(num=parameters["hazards"], keepout=_KEEPOUT))
