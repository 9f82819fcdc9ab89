"""Play real tasks: rollouts to compare, Gymnasium's checker, and safety-gymnasium without its sky."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from fsrl_ext.env import make


def flat_step(step: tuple) -> np.ndarray:
    """Return what one step gives as an array: observation, reward, cost, terminated, truncated."""
    observation, reward, terminated, truncated, info = step
    return np.append(observation, [reward, info["cost"], terminated, truncated])


def rollout(env: gymnasium.Env, seed: int | None, steps: int = 60) -> list[np.ndarray]:
    """Return everything that ``env`` gives over some random steps, with an unseeded reset half-way."""
    seen = []
    for part in range(2):
        observation, _ = env.reset(seed=seed if part == 0 else None)
        seen.append(observation)
        for _ in range(steps // 2):
            seen.append(flat_step(step := env.step(env.action_space.sample())))
            if step[2] or step[3]:
                break
    return seen


def digest(env: gymnasium.Env) -> str:
    """Return a hash of a rollout, so that two processes can compare theirs."""
    return hashlib.sha256(b"".join(part.tobytes() for part in rollout(env, seed=7, steps=80))).hexdigest()


def assert_passes_checker(env: gymnasium.Env) -> None:
    """Assert that Gymnasium's checker finds no error, and warns of nothing that the suites could change."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # MuJoCo's observations have no bounds, some of its own actions are not in [-1, 1], and
        # safety-gymnasium turns an array of one element into a float.
        for allowed in ("A Box observation space m", "For Box action spaces", "Conversion of an a"):
            warnings.filterwarnings("ignore", message=f".*{allowed}")
        check_env(env, skip_render_check=True)


def package_without_sky(task: str, **kwargs: Any) -> Any:
    """Return safety-gymnasium's own steps and resets, less the sky, which takes a second per reset."""
    env: Any = make(task, fast=False, **kwargs)
    env._drawn = False
    env._new_world()
    return env


def body(env: Any, name: str) -> np.ndarray:
    """Return the place ``[2]`` of a body of a navigation task."""
    return env.simulator.task.data.body(name).xpos[:2].copy()


def bodies(env: Any, prefix: str) -> np.ndarray:
    """Return the places ``[n, 2]`` of all bodies whose names begin with ``prefix``."""
    model = env.simulator.task.model
    names = [model.body(i).name for i in range(model.nbody)]
    return np.array([body(env, name) for name in names if name.startswith(prefix)]).reshape(-1, 2)


def beside(env: Any, place: np.ndarray) -> None:
    """Put the agent somewhere; the next step goes on from there."""
    import mujoco

    task = env.simulator.task
    agent = task.model.body("agent")
    if task.model.jnt_type[agent.jntadr[0]] != mujoco.mjtJoint.mjJNT_FREE:
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, agent.quat.copy())
        place = ((place - agent.pos[:2]) @ rotation.reshape(3, 3)[:2])[:2]
    task.data.qpos[:2] = place
