"""Write the flat observation of a navigation task in place, instead of gathering a dictionary.

Dimension letters: ``D`` observation.
"""

from typing import Any

import numpy as np
from safety_gymnasium.assets.free_geoms import PushBox, Vases
from safety_gymnasium.assets.geoms import Buttons, Circle, Goal, Hazards, Pillars
from safety_gymnasium.assets.mocaps import Gremlins
from safety_gymnasium.bases.base_object import BaseObject
from safety_gymnasium.bases.base_task import BaseTask

from fsrl_ext.env.safety_gymnasium.fast.agent import SensorReader, flat_sections
from fsrl_ext.env.safety_gymnasium.fast.lidar import Lidar
from fsrl_ext.env.safety_gymnasium.fast.views import Views

# The names of the bodies whose positions are an object's `pos`. The circle's `pos` is the origin, where the
# world's body stands.
_BODIES: dict[Any, str] = {
    Goal.pos: "goal",
    Circle.pos: "world",
    PushBox.pos: "push_box",
    Buttons.pos: "button{}",
    Hazards.pos: "hazard{}",
    Pillars.pos: "pillar{}",
    Vases.pos: "vase{}",
    Gremlins.pos: "gremlin{}obj",
}


def body_ids(obstacle: BaseObject, views: Views) -> list[int] | None:
    """Return the bodies whose positions `obstacle.pos` lists; None for a class that is not the package's."""
    name = _BODIES.get(type(obstacle).pos)
    if name is None:
        return None
    return [views.body(name.format(i)) for i in range(getattr(obstacle, "num", 1))]


class FlatObservation:
    """Computes what `BaseTask.obs` returns for a task with flat observations.

    The class replaces a dictionary of arrays, a containment check of each array, and their concatenation. It
    is exact, because sensors are copied (see `SensorReader`) and lidars use the package's arithmetic (see
    `Lidar`).

    :param task: the task.
    :param views: the views of the task's model.
    """

    def __init__(self, task: BaseTask, views: Views) -> None:
        self._task, self._views = task, views
        self._sections = flat_sections(task.obs_info.obs_space_dict)
        self._size = sum(section.stop - section.start for section in self._sections.values())
        self._sensors = SensorReader(task.agent, views, self._sections)
        self._lidar: Lidar | None = None
        self._shifts = np.empty((0, 0), int)  # starts of the sections, in the shape of the bins
        self._bodies, self._starts, self._known = np.empty(0, int), np.empty(0, int), True
        for obstacle in task._obstacles:
            self._known = self._known and not getattr(obstacle, "is_comp_observed", False)
            if obstacle.is_lidar_observed:
                bodies = body_ids(obstacle, views)
                if bodies is None:
                    self._known = False
                    return
                start = self._sections[f"{obstacle.name}_lidar"].start
                self._bodies = np.append(self._bodies, bodies).astype(int)
                self._starts = np.append(self._starts, [start] * len(bodies)).astype(int)

    def possible(self) -> bool:
        """Tell whether this class can compute the task's observations."""
        task, lidar = self._task, self._task.lidar_conf
        plain = task.observation_flatten and not task.observe_vision
        return self._known and plain and lidar.type == "pseudo" and lidar.max_dist is not None

    def __call__(self) -> np.ndarray:
        """Return the observation ``[D]``; positions and sensors must be up to date."""
        observation = np.zeros(self._size)
        self._sensors.read(observation)
        if self._bodies.size:
            conf, views = self._task.lidar_conf, self._views
            asked = conf.num_bins, conf.max_dist, conf.alias
            if self._lidar is None or self._lidar.conf != asked:
                self._lidar = Lidar(self._bodies.size, *asked)
                self._shifts = np.tile(self._starts, (3 if conf.alias else 1, 1))
            positions = views.xpos.take(self._bodies, axis=0)
            places, closeness = self._lidar.look(positions, views.agent_pos, views.agent_mat)
            places += self._shifts
            np.maximum.at(observation, places.ravel(), closeness.ravel())
        return observation

    def section(self, name: str) -> slice:
        """Return where an entry lies in the observation."""
        return self._sections[name]
