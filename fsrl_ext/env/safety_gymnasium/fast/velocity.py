"""Step a velocity task's simulator with less Python around the physics, and with the same numbers."""

from functools import cache, cached_property
from typing import Any

import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.mujoco.humanoid_v4 import HumanoidEnv


class _QuickSimulation(MujocoEnv):
    """Replaces the methods of Gymnasium's base class that look up the same things on every step."""

    @cached_property
    def dt(self) -> float:
        """Return the seconds of a step; the time step of a model is not meant to change."""
        return super().dt

    @cached_property
    def _control(self) -> np.ndarray:
        """Return the view ``[A]`` of the actuators' controls."""
        return self.data.ctrl

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see the base class."""
        if seed is not None or self.render_mode == "human":
            return super().reset(seed=seed, options=options)
        mujoco.mj_resetData(self.model, self.data)
        return self.reset_model(), {}

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Write positions and velocities of the joints, and compute what follows from them.

        :raises AssertionError: the model has other numbers of positions or velocities.
        """
        positions, velocities = self.data.qpos, self.data.qvel
        if qpos.shape != positions.shape or qvel.shape != velocities.shape:
            super().set_state(qpos, qvel)
        positions[:], velocities[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        """Apply a control for `n_frames` physics steps.

        :raises ValueError: the control has another shape than the action space.
        """
        control = self._control
        if type(ctrl) is not np.ndarray or ctrl.shape != control.shape:
            super().do_simulation(ctrl, n_frames)
            return
        control[:] = ctrl
        mujoco.mj_step(self.model, self.data, n_frames)
        # The package makes this call, too; contact forces come from nowhere else.
        mujoco.mj_rnePostConstraint(self.model, self.data)


class _QuickControlCost(_QuickSimulation):
    """Adds up the squares of an action without the layers of `numpy.sum`, in the same order."""

    _ctrl_cost_weight: float

    def control_cost(self, action: Any) -> Any:
        """Return the weighted sum of squares of an action ``[A]``."""
        return self._ctrl_cost_weight * np.add.reduce(np.square(action))


@cache
def quick_class(simulator_class: type) -> type:
    """Return the subclass of a velocity task's simulator class that steps faster."""
    # The humanoid's cost is that of the controls in the simulator, and not of the action.
    quick = _QuickSimulation if issubclass(simulator_class, HumanoidEnv) else _QuickControlCost
    return type(simulator_class.__name__, (quick, simulator_class), {})
