"""Read the agent's position, velocity and sensors without a lookup by name for each.

All functions read the numbers that the package's methods read, and compute with the same operations.

Dimension letters: ``D`` observation.
"""

import functools
import math
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces
from safety_gymnasium.bases.base_agent import BaseAgent

from fsrl_ext.env.safety_gymnasium.fast.views import IndexedEngine, Views


class IndexedAgent(BaseAgent):
    """Replaces properties of an agent whose engine is an `IndexedEngine`; `indexed_agent` mixes it in."""

    engine: IndexedEngine

    @property
    def pos(self) -> np.ndarray:
        """Return the position ``[3]``."""
        return self.engine.views.agent_pos.copy()

    @property
    def mat(self) -> np.ndarray:
        """Return the rotation matrix ``[3, 3]``."""
        return self.engine.views.agent_mat.copy()

    @property
    def vel(self) -> np.ndarray:
        """Return the velocity ``[3]``."""
        views = self.engine.views
        return views.velocity(views.agent)

    def dist_xy(self, pos: Any) -> np.float64:
        """Return the distance in the plane to a position ``[2]`` or ``[3]``.

        The method replaces `np.sqrt(np.sum(np.square(...)))`. It is exact, because the sum of two squares has
        only one order, and both square roots round correctly.
        """
        x, y, _ = self.engine.views.agent_pos.tolist()
        dx, dy = float(pos[0]) - x, float(pos[1]) - y
        return np.float64(math.sqrt(dx * dx + dy * dy))

    def apply_action(self, action: np.ndarray, noise: np.ndarray | None = None) -> None:
        """Set the controls to the clipped action.

        The method replaces `np.clip` by a minimum and a maximum, neither of which rounds.
        """
        if noise is not None:
            super().apply_action(action, noise)
            return
        views = self.engine.views
        np.minimum(np.maximum(action, views.ctrl_low), views.ctrl_high, out=views.ctrl)


@functools.cache
def indexed_agent(kind: type[BaseAgent]) -> type[BaseAgent]:
    """Return the class of agents `kind` with `IndexedAgent` mixed in, under the name of `kind`."""
    return type(kind.__name__, (IndexedAgent, kind), {})


class SensorReader:
    """Writes an agent's sensors into a flat observation.

    The class replaces `BaseAgent.obs_sensor` and the flattening of its result. It is exact, because values
    are copied, and sines, cosines and rotation matrices come from the same functions.

    :param agent: the agent.
    :param views: the views of the agent's model.
    :param sections: where each entry of the flat observation lies.
    """

    def __init__(self, agent: BaseAgent, views: Views, sections: dict[str, slice]) -> None:
        info, self._data = agent.sensor_info, views.sensordata
        angles, quaternions = (info.hinge_pos_names, info.ballquat_names)
        if not agent.sensor_conf.sensors_angle_components:
            angles, quaternions = [], []  # the package copies angles and quaternions then
        address = {n: views.model.sensor(n).adr[0] for n in sections if n in info.sensor_dim}
        copied = [name for name in address if name not in angles and name not in quaternions]
        sources = []
        for name in copied:
            length = sections[name].stop - sections[name].start
            skipped = 2 if name == info.freejoint_pos_name else 0  # the observation has the height alone
            sources.append(address[name] + skipped + np.arange(length))
        self._from = _in_a_row(np.concatenate([*sources, np.empty(0, int)]).astype(int))
        self._to = _in_a_row(_places(sections, copied))
        self._angles = np.array([address[name] for name in angles], dtype=int)
        self._angles_to = _places(sections, angles).reshape(-1, 2)
        self._quaternions = [(address[name], sections[name]) for name in quaternions]

    def read(self, observation: np.ndarray) -> None:
        """Fill in the sensors' sections of an observation ``[D]``."""
        observation[self._to] = self._data[self._from]
        if self._angles.size:
            angles = self._data.take(self._angles)
            observation[self._angles_to[:, 0]] = np.sin(angles)
            observation[self._angles_to[:, 1]] = np.cos(angles)
        for address, section in self._quaternions:
            mujoco.mju_quat2Mat(observation[section], self._data[address : address + 4])


def _in_a_row(places: np.ndarray) -> np.ndarray | slice:
    """Return consecutive places as a slice, which NumPy copies faster, and other places as they are."""
    if len(places) and np.array_equal(places, np.arange(places[0], places[0] + len(places))):
        return slice(places[0], places[-1] + 1)
    return places


def _places(sections: dict[str, slice], names: list[str]) -> np.ndarray:
    places = [np.arange(sections[name].start, sections[name].stop) for name in names]
    return np.concatenate([*places, np.empty(0, int)]).astype(int)


def flat_sections(space: spaces.Dict) -> dict[str, slice]:
    """Return where each entry of a dictionary space lies in the flattened observation."""
    sections, start = {}, 0
    for name, part in space.spaces.items():
        stop = start + spaces.flatdim(part)
        sections[name] = slice(start, stop)
        start = stop
    return sections
