"""Write a new layout into a compiled MuJoCo model, where the result equals that of compiling the layout.

safety-gymnasium writes its world as XML and compiles it at every reset (5 to 13 ms). Between two resets only
the places of objects differ, and a compiled model holds the places in a few arrays. `mj_setConst` derives
again what the compiler derives from places (4 us).

The first layout of a set of objects is compiled. The second layout is written *and* compiled. Later layouts
are only written if all fields of both models of the second layout are equal, bit for bit; otherwise they are
compiled. A world that this module does not understand is therefore compiled at every reset.

Dimension letters: ``B`` placed bodies.
"""

from typing import Any

import mujoco
import numpy as np
from safety_gymnasium.utils.common_utils import rot2quat
from safety_gymnasium.world import World

_KINDS = ("free_geoms", "mocaps", "geoms")
_PLACES = ("pos", "rot")
_OTHER = ("agent_base", "floor_size", "floor_type")
# Fields of pictures and meshes, which are large, and into which no task writes.
_UNTOUCHED = ("tex_rgb", "mesh_", "hfield_data", "skin_")
# A free joint has a position and a quaternion in qpos.
_FREE_JOINT_SIZE = 7
# The entries of `eq_data` that hold the relative pose of a weld.
_WELD_POSE = slice(3, 10)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def objects_without_places(world: World) -> dict[str, Any]:
    """Return what the compiler reads of a world, apart from places.

    Worlds with equal results can share a compiled model.
    """
    objects = {
        (kind, name): {key: _plain(value) for key, value in config.items() if key not in _PLACES}
        for kind in _KINDS
        for name, config in getattr(world, kind).items()
    }
    return {"objects": objects, **{key: _plain(getattr(world, key)) for key in _OTHER}}


def compiled_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Divide a quaternion ``[4]`` by its norm, whose squares are summed from the left as in the compiler."""
    return quaternion / np.sqrt(np.sum(np.square(quaternion)))


def frame_to_quaternion(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the quaternion ``[4]`` of a frame with axes ``[3]``, by the operations of MuJoCo's compiler."""
    if x[0] + y[1] + z[2] > 0:
        w = 0.5 * np.sqrt(1 + x[0] + y[1] + z[2])
        rest = y[2] - z[1], z[0] - x[2], x[1] - y[0]
        return compiled_quaternion(np.array([w, *(0.25 * value / w for value in rest)]))
    # The compiler divides by the largest of the other three entries. The three cases differ by a rotation of
    # the axes.
    if x[0] > y[1] and x[0] > z[2]:
        i = 0.5 * np.sqrt(1 + x[0] - y[1] - z[2])
        w, j, k = (0.25 * value / i for value in (y[2] - z[1], y[0] + x[1], z[0] + x[2]))
    elif y[1] > z[2]:
        j = 0.5 * np.sqrt(1 - x[0] + y[1] - z[2])
        w, i, k = (0.25 * value / j for value in (z[0] - x[2], y[0] + x[1], z[1] + y[2]))
    else:
        k = 0.5 * np.sqrt(1 - x[0] - y[1] + z[2])
        w, i, j = (0.25 * value / k for value in (x[1] - y[0], z[0] + x[2], z[1] + y[2]))
    return compiled_quaternion(np.array([w, i, j, k]))


def track_camera(agent_rot: float) -> tuple[np.ndarray, np.ndarray]:
    """Return position ``[3]`` and quaternion ``[4]`` of the camera that the package hangs on the agent."""
    sine, cosine = np.sin(agent_rot + np.pi), np.cos(agent_rot + np.pi)
    x, y = np.array([cosine, -sine, 0.0]), np.array([sine, cosine, 1.0])
    x /= np.sqrt(np.sum(np.square(x)))
    y -= (x[0] * y[0] + x[1] * y[1] + x[2] * y[2]) * x
    y /= np.sqrt(np.sum(np.square(y)))
    z = np.array([x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]])
    z /= np.sqrt(np.sum(np.square(z)))
    position = np.array([0 * cosine + (-2) * sine, 0 * (-sine) + (-2) * cosine, 2.0])
    # The compiler normalises twice: when it reads the axes, and when it compiles the camera.
    return position, compiled_quaternion(frame_to_quaternion(x, y, z))


def model_arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Return views of all array fields of a model, without pictures and meshes."""
    names = (n for n in dir(model) if not n.startswith(("_", *_UNTOUCHED)))
    fields = ((name, getattr(model, name)) for name in names)
    return {name: value for name, value in fields if isinstance(value, np.ndarray)}


def model_scalars(model: mujoco.MjModel) -> dict[str, Any]:
    """Return copies of the options and statistics of a model."""
    parts = {"opt": model.opt, "stat": model.stat}
    return {
        f"{part}.{name}": np.copy(getattr(fields, name))
        for part, fields in parts.items()
        for name in dir(fields)
        if not name.startswith("_")
    }


def same_model(a: mujoco.MjModel, b: mujoco.MjModel) -> bool:
    """Tell whether two models are equal bit for bit, apart from pictures and meshes."""
    for fields in (model_arrays, model_scalars):
        first, second = fields(a), fields(b)
        if first.keys() != second.keys():
            return False
        if not all(np.array_equal(first[name], second[name]) for name in first):
            return False
    return a.names == b.names


class CompiledLayout:
    """Holds a compiled world, into which other layouts of the same objects can be written.

    :param world: a world that has just been built; its model and data are used from then on.
    """

    def __init__(self, world: World) -> None:
        self.model, self.data = world.model, world.data
        self.objects = objects_without_places(world)
        self._arrays = model_arrays(self.model)
        self._pristine = {name: value.copy() for name, value in self._arrays.items()}
        self._options = {name: np.copy(getattr(self.model.opt, name)) for name in self._option_names()}
        self._find(world)

    def _option_names(self) -> list[str]:
        return [name for name in dir(self.model.opt) if not name.startswith("_")]

    def _find(self, world: World) -> None:
        """Find the places of this world's objects in the model."""
        model, find = self.model, mujoco.mj_name2id
        body, camera = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_CAMERA
        self._placed = [(kind, name) for kind in ("free_geoms", "geoms") for name in getattr(world, kind)]
        names = ["agent", *(name for _, name in self._placed)]
        self._bodies = np.array([find(model, body, name) for name in names])
        # The inertial frame of a body without mass is the body's own frame.
        at_frame = (model.body_ipos == model.body_pos).all(1) & (model.body_iquat == model.body_quat).all(1)
        massless = model.body_mass == 0
        self._frame_rows = np.nonzero((at_frame & massless)[self._bodies])[0]
        joints = model.body_jntadr[self._bodies]
        free = [
            model.body_jntnum[b] == 1 and model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE
            for b, j in zip(self._bodies, joints, strict=True)
        ]
        self._free_rows = np.nonzero(free)[0]
        self._free_qpos = model.jnt_qposadr[joints[self._free_rows]][:, None] + np.arange(_FREE_JOINT_SIZE)
        self._mocaps = list(world.mocaps)
        self._mocap_bodies = np.array([find(model, body, name) for name in self._mocaps], dtype=int)
        self._mocap_geoms = model.body_geomadr[self._mocap_bodies]
        self._welds = np.nonzero(model.eq_type == mujoco.mjtEq.mjEQ_WELD)[0]
        self._camera = find(model, camera, "track")

    def _places(self, world: World) -> tuple[np.ndarray, np.ndarray]:
        """Return position ``[B, 3]`` and rotation ``[B, 4]`` of every placed body."""
        positions = np.empty((len(self._bodies), 3))
        quaternions = self._pristine["body_quat"][self._bodies]
        positions[0] = *world.agent_xy, world._agent.z_height
        quaternions[0] = compiled_quaternion(rot2quat(world.agent_rot))
        for row, (kind, name) in enumerate(self._placed, start=1):
            config = getattr(world, kind)[name]
            positions[row] = config["pos"]
            if config["type"] != "mesh":  # a mesh keeps the "euler" with which it was compiled
                quaternions[row] = compiled_quaternion(rot2quat(config["rot"]))
        return positions, quaternions

    def write(self, world: World) -> None:
        """Set model and data to what building `world` gives before any `mj_forward`."""
        for name, value in self._arrays.items():
            value[...] = self._pristine[name]
        for name, option in self._options.items():
            setattr(self.model.opt, name, option)
        model, (positions, quaternions) = self.model, self._places(world)
        model.body_pos[self._bodies], model.body_quat[self._bodies] = positions, quaternions
        rows = self._frame_rows
        model.body_ipos[self._bodies[rows]] = positions[rows]
        model.body_iquat[self._bodies[rows]] = quaternions[rows]
        free = np.hstack((positions, quaternions))[self._free_rows]
        model.qpos0[self._free_qpos] = model.qpos_spring[self._free_qpos] = free
        self._write_mocaps(world)
        if self._camera >= 0:
            model.cam_pos[self._camera], model.cam_quat[self._camera] = track_camera(world.agent_rot)
        mujoco.mj_resetData(model, self.data)  # mj_setConst reads the current places of moving objects
        mujoco.mj_setConst(model, self.data)
        mujoco.mj_resetData(model, self.data)

    def _write_mocaps(self, world: World) -> None:
        """Place the geom and the inertial frame of each mocap body; the body itself stays in the origin."""
        model = self.model
        for name, body, geom in zip(self._mocaps, self._mocap_bodies, self._mocap_geoms, strict=True):
            config = world.mocaps[name]
            model.geom_pos[geom] = model.body_ipos[body] = config["pos"]
            quaternion = compiled_quaternion(rot2quat(config["rot"]))
            model.geom_quat[geom] = model.body_iquat[body] = quaternion
        # Where the pose is zero, mj_setConst takes it from the layout, as after parsing.
        model.eq_data[self._welds, _WELD_POSE] = 0.0


class LayoutCache:
    """Keeps the compiled layout of one environment, and whether writing into it is exact."""

    def __init__(self) -> None:
        self._layout: CompiledLayout | None = None
        self._exact: bool | None = None  # None until the second layout has been compared

    def load(self, world: World) -> bool:
        """Write `world` into the compiled model; return whether the result is known to be exact."""
        if self._layout is None or self._exact is False or not self._same_objects(world):
            return False
        self._layout.write(world)
        return self._exact is True

    def _same_objects(self, world: World) -> bool:
        assert self._layout is not None
        return objects_without_places(world) == self._layout.objects

    def engine(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Return model and data after a successful `load`."""
        assert self._layout is not None
        return self._layout.model, self._layout.data

    def store(self, world: World) -> None:
        """Keep or compare a `world` that was compiled because `load` returned False."""
        layout = self._layout
        if layout is None or not self._same_objects(world):
            self._layout, self._exact = CompiledLayout(world), None
        elif self._exact is None:
            self._exact = same_model(layout.model, world.model)
