"""Button tasks with an extent and numbers of their own, from safety-gymnasium's pieces.

Import this after `import_safety_gymnasium`.
"""

from typing import Any

from safety_gymnasium.assets.geoms import Hazards
from safety_gymnasium.tasks.safe_navigation.button.button_level0 import ButtonLevel0

from fsrl_ext.env.meta.parameters import Parameters

_KEEPOUT = 0.2


class Stbutton(ButtonLevel0):
    """Press the goal button, and no other, without entering hazards; nothing moves about.

    Reward: progress towards the goal button, plus 1 per press of it; the next goal is drawn then,
    and may be the same. Cost 1 in a hazard or at another button, except that buttons cost nothing in
    the 10 steps after a press, when the lidar does not show them either.

    :param config: as for the package's tasks.
    :param parameters: `extent`, `buttons` and `hazards`.
    """

    def __init__(self, config: dict[str, Any], parameters: Parameters) -> None:
        super().__init__(config=config)
        extent = parameters["extent"]
        self.placements_conf.extents = [-extent, -extent, extent, extent]
        self.buttons.num, self.buttons.keepout = parameters["buttons"], _KEEPOUT
        self.buttons.is_constrained = True
        self._add_geoms(Hazards(num=parameters["hazards"], keepout=_KEEPOUT))
