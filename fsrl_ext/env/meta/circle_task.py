"""Build Circle tasks of a given radius, with given walls and hazards.

Import this module after `import_safety_gymnasium`.
"""

from typing import Any

from safety_gymnasium.assets.geoms import Hazards, Sigwalls
from safety_gymnasium.tasks.safe_navigation.circle.circle_level0 import CircleLevel0

from fsrl_ext.env.meta.parameters import Parameters

# Rectangle in which the agent starts: x and y of its lower and its upper corner [m].
_START = (-0.2, -0.2, 0.2, 0.2)
_HAZARD_RADIUS = 0.12


class Stcircle(CircleLevel0):
    """Asks the agent to run around a circle between two walls, which it can pass at a cost.

    For position (x, y), velocity (u, v) and rho = |(x, y)|, a step pays
    0.1 (-u y + v x) / rho / (1 + |rho - radius|). A step with |x| > wall costs 1. The lidar's range is 6.

    :param config: safety-gymnasium's configuration of the task.
    :param parameters: `radius` and `wall`.
    """

    def __init__(self, config: dict[str, Any], parameters: Parameters) -> None:
        super().__init__(config=config)
        self.agent.placements = [_START]
        self.circle.radius = parameters["radius"]
        self._add_geoms(Sigwalls(num=2, locate_factor=parameters["wall"], is_constrained=True))


class StcircleHazard(Stcircle):
    """Adds hazards to `Stcircle`; a step in a hazard costs 1 too.

    :param config: safety-gymnasium's configuration of the task.
    :param parameters: `radius`, `wall`, `hazards` and `hazard_extent`.
    """

    def __init__(self, config: dict[str, Any], parameters: Parameters) -> None:
        super().__init__(config, parameters)
        extent = parameters["hazard_extent"]
        placements = [(-extent, -extent, extent, extent)]
        self._add_geoms(Hazards(num=parameters["hazards"], size=_HAZARD_RADIUS, placements=placements))
