"""What a policy must know of a task, apart from the environment itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from fsrl_ext.env import time_limit
from fsrl_ext.env.agents import TeamEnv
from fsrl_ext.env.observations import is_image, unflat_fix, unflat_part


@dataclass(frozen=True, kw_only=True)
class TeamShape:
    """How the observations and actions of a team are divided among its agents.

    The numbers of the agents follow each other; one number for each agent, whether it is in the episode,
    follows all observations (:class:`fsrl_ext.env.agents.TeamEnv`).

    :param names: the agents ``[N]``.
    :param obs_dims: ``[N]`` numbers that each agent observes.
    :param act_dims: ``[N]`` numbers of each agent's action.
    """

    names: tuple[str, ...]
    obs_dims: tuple[int, ...]
    act_dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Shapes and bounds of a task, which are enough to build a policy without the simulator.

    :param obs_dim: length of the flat observation, or number of the pixels' values.
    :param action_low: ``[A]`` lowest actions; empty for discrete ones.
    :param action_high: ``[A]`` highest actions; empty for discrete ones.
    :param max_episode_steps: the time limit.
    :param action_dtype: NumPy's name of the actions' type.
    :param cost_names: names of the costs that the task reports; ``None`` for costs without names. Saved files
        have the names in the run's config.
    :param team: how observations and actions are divided among several agents; ``None`` for one agent.
    :param num_actions: number of discrete actions; ``None`` for a box.
    :param first_action: number that the environment gives the first discrete action.
    :param image_shape: shape of an observation that is an image (uint8); ``None`` for vectors.
    """

    obs_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_episode_steps: int
    action_dtype: str = "float32"
    cost_names: tuple[str, ...] | None = None
    team: TeamShape | None = None
    num_actions: int | None = None
    first_action: int = 0
    image_shape: tuple[int, ...] | None = None

    @property
    def act_dim(self) -> int:
        """Length of an action, or number of discrete actions."""
        return len(self.action_low) if self.num_actions is None else self.num_actions

    @property
    def action_space(self) -> gym.spaces.Box | gym.spaces.Discrete:
        """The actions as a space."""
        if self.num_actions is not None:
            return gym.spaces.Discrete(self.num_actions, start=self.first_action)
        dtype: Any = np.dtype(self.action_dtype)
        low, high = (np.asarray(x, dtype=dtype) for x in (self.action_low, self.action_high))
        return gym.spaces.Box(low, high, dtype=dtype)

    @classmethod
    def from_env(cls, env: gym.Env, task: str) -> TaskSpec:
        """The spec of an environment.

        :raises ValueError: for actions that are neither a flat box nor discrete, observations that are
            neither flat vectors nor images, or an environment without a time limit.
        """
        actions = _actions(env.action_space, task)
        observations = _observations(env.observation_space, task)
        horizon = time_limit(env)
        if horizon is None:
            how = "register it with max_episode_steps"
            if isinstance(env.unwrapped, TeamEnv):
                how = "give its environment the attribute max_cycles"
            raise ValueError(
                f"{task} has no time limit; {how}, which turns the cost limit of an episode into a threshold"
            )
        own = env.unwrapped
        team = None
        if isinstance(own, TeamEnv):
            team = TeamShape(names=own.agent_names, obs_dims=own.obs_dims, act_dims=own.act_dims)
        return cls(
            max_episode_steps=horizon,
            team=team,
            **observations,
            **actions,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data: numbers and lists."""
        team = {} if self.team is None else {"team": {k: list(v) for k, v in vars(self.team).items()}}
        discrete = {"num_actions": self.num_actions, "first_action": self.first_action}
        image = {} if self.image_shape is None else {"image_shape": list(self.image_shape)}
        return {
            **team,
            **image,
            **({} if self.num_actions is None else discrete),
            "obs_dim": self.obs_dim,
            "action_low": list(self.action_low),
            "action_high": list(self.action_high),
            "max_episode_steps": self.max_episode_steps,
            "action_dtype": self.action_dtype,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TaskSpec:
        """The inverse of :meth:`as_dict`."""
        team, image_shape = data.get("team"), data.get("image_shape")
        return cls(
            team=None if team is None else TeamShape(**{k: tuple(v) for k, v in team.items()}),
            obs_dim=data["obs_dim"],
            action_low=tuple(data["action_low"]),
            action_high=tuple(data["action_high"]),
            max_episode_steps=data["max_episode_steps"],
            # Files from before specs had the type hold policies of float32 actions.
            action_dtype=data.get("action_dtype", "float32"),
            num_actions=data.get("num_actions"),
            first_action=data.get("first_action", 0),
            image_shape=None if image_shape is None else tuple(image_shape),
        )


def _observations(space: gym.Space, task: str) -> dict[str, Any]:
    """What a spec says of an observation space.

    :raises ValueError: for a space that holds neither flat vectors nor images.
    """
    if is_image(space):
        return {"obs_dim": math.prod(space.shape), "image_shape": tuple(space.shape)}
    unflat = unflat_part(space)
    if unflat is not None:
        raise ValueError(f"{task}: {unflat}; policies need a vector of numbers: {unflat_fix(space)}")
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ValueError(
            f"{task} has the observation space {space}; a flat Box is needed "
            "(gymnasium.wrappers.FlattenObservation makes one)"
        )
    return {"obs_dim": space.shape[0]}


def _actions(space: gym.Space, task: str) -> dict[str, Any]:
    """What a spec says of an action space.

    :raises ValueError: for a space that is neither a flat box nor discrete.
    """
    if isinstance(space, gym.spaces.Discrete):
        low: dict[str, Any] = {"action_low": (), "action_high": (), "action_dtype": str(space.dtype)}
        return {**low, "num_actions": int(space.n), "first_action": int(space.start)}
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ValueError(
            f"{task} has the action space {' '.join(str(space).split())}; a flat continuous (Box) or a "
            "Discrete one is needed"
        )
    return {
        "action_low": tuple(space.low.tolist()),
        "action_high": tuple(space.high.tolist()),
        "action_dtype": str(space.dtype),
    }
