"""Writing a new layout into a compiled MuJoCo model, where that gives what compiling it would give.

safety-gymnasium writes its world as XML and compiles it at every reset (5 to 13 ms). Between two
resets only the places of objects differ, and a compiled model holds those in a few arrays. What the
compiler derives from them, `mj_setConst` derives again (4 us).

The first layout of a set of objects is compiled. The second is written *and* compiled, and only if
all fields of both models are equal, bit for bit, are later ones written alone. So a world that this
module does not understand is simply recompiled.

Dimension letters: ``B`` placed bodies, ``M`` moving (mocap) objects.
"""

from typing import Any

import mujoco
import numpy as np
from safety_gymnasium.utils.common_utils import rot2quat
from safety_gymnasium.world import World

_KINDS = ("free_geoms", "mocaps", "geoms")
_PLACES = ("pos", "rot")
_OTHER = ("agent_base", "floor_size", "floor_type")
# Pictures and meshes are large, and no task writes into them.
_UNTOUCHED = ("tex_rgb", "mesh_", "hfield_data", "skin_")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def objects_without_places(world: World) -> dict[str, Any]:
    """What the compiler is told of a world, apart from where things are; equal means relayable."""
    objects = {
        (kind, name): {key: _plain(value) for key, value in config.items() if key not in _PLACES}
        for kind in _KINDS
        for name, config in getattr(world, kind).items()
    }
    return {"objects": objects, **{key: _plain(getattr(world, key)) for key in _OTHER}}


def compiled_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """A quaternion ``[4]`` as the compiler keeps it: divided by its norm, summed from the left."""
    return quaternion / np.sqrt(np.sum(np.square(quaternion)))


def frame_to_quaternion(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The quaternion ``[4]`` of a frame given by its axes ``[3]``, in the order of MuJoCo's compiler."""
    if x[0] + y[1] + z[2] > 0:
        w = 0.5 * np.sqrt(1 + x[0] + y[1] + z[2])
        rest = y[2] - z[1], z[0] - x[2], x[1] - y[0]
        return compiled_quaternion(np.array([w, *(0.25 * value / w for value in rest)]))
    # The compiler divides by the largest of the other three; the rest follows by rotating the axes.
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
    """Position ``[3]`` and quaternion ``[4]`` of the camera that the package hangs on the agent."""
    sine, cosine = np.sin(agent_rot + np.pi), np.cos(agent_rot + np.pi)
    x, y = np.array([cosine, -sine, 0.0]), np.array([sine, cosine, 1.0])
    x /= np.sqrt(np.sum(np.square(x)))
    y -= (x[0] * y[0] + x[1] * y[1] + x[2] * y[2]) * x
    y /= np.sqrt(np.sum(np.square(y)))
    z = np.array([x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]])
    z /= np.sqrt(np.sum(np.square(z)))
    position = np.array([0 * cosine + (-2) * sine, 0 * (-sine) + (-2) * cosine, 2.0])
    # Normalised twice: where the axes are read, and where the camera is compiled.
    return position, compiled_quaternion(frame_to_quaternion(x, y, z))


def model_arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Views of all array fields of a model, without pictures and meshes."""
    names = (n for n in dir(model) if not n.startswith(("_", *_UNTOUCHED)))
    fields = ((name, getattr(model, name)) for name in names)
    return {name: value for name, value in fields if isinstance(value, np.ndarray)}


def model_scalars(model: mujoco.MjModel) -> dict[str, Any]:
    """The options and statistics of a model, copied."""
    parts = {"opt": model.opt, "stat": model.stat}
    return {
        f"{part}.{name}": np.copy(getattr(fields, name))
        for part, fields in parts.items()
        for name in dir(fields)
        if not name.startswith("_")
    }


def same_model(a: mujoco.MjModel, b: mujoco.MjModel) -> bool:
    """Whether two models are equal bit for bit, apart from pictures and meshes."""
    for fields in (model_arrays, model_scalars):
        first, second = fields(a), fields(b)
        if first.keys() != second.keys():
            return False
        if not all(np.array_equal(first[name], second[name]) for name in first):
            return False
    return a.names == b.names


class CompiledLayout:
    """A compiled world into which other layouts of the same objects can be written.

    :param world: a world that has just been built; its model and data are used on.
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
        """Where in the model the places of this world's objects are."""
        model, find = self.model, mujoco.mj_name2id
        body, camera = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_CAMERA
        self._placed = [(kind, name) for kind in ("free_geoms", "geoms") for name in getattr(world, kind)]
        names = ["agent", *(name for _, name in self._placed)]
        self._bodies = np.array([find(model, body, name) for name in names])
        # A body without mass and inertia of its own takes its frame for its inertial frame.
        at_frame = (model.body_ipos == model.body_pos).all(1) & (model.body_iquat == model.body_quat).all(1)
        massless = model.body_mass == 0
        self._frame_rows = np.nonzero((at_frame & massless)[self._bodies])[0]
        joints = model.body_jntadr[self._bodies]
        free = [
            model.body_jntnum[b] == 1 and model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE
            for b, j in zip(self._bodies, joints, strict=True)
        ]
        self._free_rows = np.nonzero(free)[0]
        self._free_qpos = model.jnt_qposadr[joints[self._free_rows]][:, None] + np.arange(7)
        self._mocaps = list(world.mocaps)
        self._mocap_bodies = np.array([find(model, body, name) for name in self._mocaps], dtype=int)
        self._mocap_geoms = model.body_geomadr[self._mocap_bodies]
        self._welds = np.nonzero(model.eq_type == mujoco.mjtEq.mjEQ_WELD)[0]
        self._camera = find(model, camera, "track")

    def _places(self, world: World) -> tuple[np.ndarray, np.ndarray]:
        """Position and rotation of every placed body, ``[B, 3]`` and ``[B, 4]``."""
        positions = np.empty((len(self._bodies), 3))
        quaternions = self._pristine["body_quat"][self._bodies]
        positions[0] = *world.agent_xy, world._agent.z_height
        quaternions[0] = compiled_quaternion(rot2quat(world.agent_rot))
        for row, (kind, name) in enumerate(self._placed, start=1):
            config = getattr(world, kind)[name]
            positions[row] = config["pos"]
            if config["type"] != "mesh":  # a mesh keeps the "euler" it was compiled with
                quaternions[row] = compiled_quaternion(rot2quat(config["rot"]))
        return positions, quaternions

    def write(self, world: World) -> None:
        """Make model and data what building `world` would make them, before any `mj_forward`."""
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
        mujoco.mj_resetData(model, self.data)  # mj_setConst looks at moving objects where they are
        mujoco.mj_setConst(model, self.data)
        mujoco.mj_resetData(model, self.data)

    def _write_mocaps(self, world: World) -> None:
        """A mocap body stays in the origin; its geom is placed, and with it the inertial frame."""
        model = self.model
        for name, body, geom in zip(self._mocaps, self._mocap_bodies, self._mocap_geoms, strict=True):
            config = world.mocaps[name]
            model.geom_pos[geom] = model.body_ipos[body] = config["pos"]
            quaternion = compiled_quaternion(rot2quat(config["rot"]))
            model.geom_quat[geom] = model.body_iquat[body] = quaternion
        # Zero makes mj_setConst take the relative pose of a weld from the layout, as after parsing.
        model.eq_data[self._welds, 3:10] = 0.0


class LayoutCache:
    """The compiled layout of one environment, and whether writing into it is exact."""

    def __init__(self) -> None:
        self._layout: CompiledLayout | None = None
        self._exact: bool | None = None  # None: not compared yet

    def load(self, world: World) -> bool:
        """Write `world` into the compiled model, if that is known to be exact; else return False."""
        if self._layout is None or self._exact is False or not self._same_objects(world):
            return False
        self._layout.write(world)
        return self._exact is True

    def _same_objects(self, world: World) -> bool:
        assert self._layout is not None
        return objects_without_places(world) == self._layout.objects

    def engine(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Model and data after a successful `load`."""
        assert self._layout is not None
        return self._layout.model, self._layout.data

    def store(self, world: World) -> None:
        """Learn from a `world` that has been compiled because `load` declined."""
        layout = self._layout
        if layout is None or not self._same_objects(world):
            self._layout, self._exact = CompiledLayout(world), None
        elif self._exact is None:
            self._exact = same_model(layout.model, world.model)
