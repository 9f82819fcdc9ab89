"""Look up ids and arrays of a compiled world once per model, instead of once per use."""

import mujoco
import numpy as np
from safety_gymnasium.world import Engine


class Views:
    """Keeps ids and arrays of one model and its data.

    :param model: a compiled model; its objects keep their ids.
    :param data: the model's data; the arrays are views of it.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data, self.opt = model, data, model.opt
        self._bodies: dict[str, int] = {}
        self.xpos, self.xmat = data.xpos, data.xmat  # [bodies, 3], [bodies, 9]
        self.qvel, self.ctrl, self.sensordata = data.qvel, data.ctrl, data.sensordata
        self.mocap_pos = data.mocap_pos
        self.agent = self.body("agent")
        self.agent_pos = self.xpos[self.agent]
        self.agent_mat = self.xmat[self.agent].reshape(3, 3)
        with_quaternion = np.isin(
            model.jnt_type, [int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)]
        )
        self._has_quaternions = bool(with_quaternion.any())
        self._qpos, self._normalised = data.qpos, np.empty_like(data.qpos)
        self._jacobian = np.zeros((3, model.nv))
        bounds = model.actuator_ctrlrange
        self.ctrl_low, self.ctrl_high = bounds[:, 0], bounds[:, 1]

    def body(self, name: str) -> int:
        """Return the id of the body called `name`.

        :raises KeyError: no body has the name.
        """
        if name not in self._bodies:
            self._bodies[name] = self.model.body(name).id
        return self._bodies[name]

    def normalised(self) -> bool:
        """Tell whether normalising the state's quaternions, as `mj_forward` does, would change nothing."""
        if not self._has_quaternions:
            return True
        np.copyto(self._normalised, self._qpos)
        mujoco.mj_normalizeQuat(self.model, self._normalised)
        return self._normalised.tobytes() == self._qpos.tobytes()

    def velocity(self, body: int) -> np.ndarray:
        """Return the velocity ``[3]`` of a body's frame.

        The method replaces `get_body_xvelp`, which looks the body up by name and allocates the Jacobian
        ``[3, nv]``. It is exact, because it makes the same two calls on the same numbers.
        """
        mujoco.mj_jacBody(self.model, self.data, self._jacobian, None, body)
        return np.dot(self._jacobian, self.qvel)


class IndexedEngine(Engine):
    """Holds the package's pair of model and data, and the `views` of that pair."""

    views: Views

    def update(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Hold another pair of model and data."""
        if model is not self.model or data is not self.data:
            super().update(model, data)
            self.views = Views(model, data)
