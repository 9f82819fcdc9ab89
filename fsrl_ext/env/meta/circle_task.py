"""Circle tasks with a radius, walls and hazards of their own, from safety-gymnasium's pieces.

Import this after `import_safety_gymnasium`.
"""

from typing import Any

from safety_gymnasium.assets.geoms import Hazards, Sigwalls
from safety_gymnasium.tasks.safe_navigation.circle.circle_level0 import CircleLevel0

from fsrl_ext.env.meta.parameters import Parameters

_START = (-0.2, -0.2, 0.2, 0.2)


class Stcircle(CircleLevel0):
    """Run around a circle between two walls that can be passed at a cost.

    Reward 0.1 (-u y + v x) / rho / (1 + |rho - radius|) for position (x, y), velocity (u, v) and
    rho = |(x, y)|; cost 1 where |x| > wall. The lidar sees 6 far.

    :param config: as for the package's tasks.
    :param parameters: `radius` and `wall`.
    """

    def __init__(self, config: dict[str, Any], parameters: Parameters) -> None:
        super().__init__(config=config)
        self.agent.placements = [_START]
        self.circle.radius = parameters["radius"]
        self._add_geoms(Sigwalls(num=2, locate_factor=parameters["wall"], is_constrained=True))


class StcircleHazard(Stcircle):
    """The same with hazards, in which a step costs 1 too.

    :param parameters: `hazards` and `hazard_extent` besides.
    """

    def __init__(self, config: dict[str, Any], parameters: Parameters) -> None:
        super().__init__(config, parameters)
        extent = parameters["hazard_extent"]
        placements = [(-extent, -extent, extent, extent)]
        self._add_geoms(Hazards(num=parameters["hazards"], size=0.12, placements=placements))
