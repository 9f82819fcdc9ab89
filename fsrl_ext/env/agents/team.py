"""Present all agents of a task as one Gymnasium environment.

Collectors, policies, trainers and saved runs then serve a team as they serve one agent. One episode of the
team is one episode: it is counted once, and its cost is compared with the limit once.

Dimension letters: ``N`` agents, ``O`` numbers that all agents observe, ``A`` numbers of all agents' actions.
"""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from fsrl_ext.env.agents.contract import ParallelCostEnv
from fsrl_ext.env.contract import CostUnit
from fsrl_ext.env.observations import flat_caster, flat_space, unflat_part
from fsrl_ext.errors import checked


class TeamEpisode(NamedTuple):
    """What each agent did in one episode."""

    returns: tuple[float, ...]
    """``[N]`` sums of the agents' own rewards."""
    costs: tuple[float, ...]
    """``[N]`` sums of the agents' own costs."""
    lens: tuple[int, ...]
    """``[N]`` steps that the agents took."""


class TeamEnv(gymnasium.Env):
    """Is a task of several agents as one environment.

    The observation ``[O + N]`` is the agents' observations one after the other, in the order of
    `possible_agents`, and then a 1 for each agent that is in the episode and a 0 for each that has left it.
    What an agent that has left would observe is 0, and its action has no effect. The action ``[A]`` is the
    agents' actions one after the other.

    The reward of a step is the sum of the agents' rewards, or the one reward that all agents share. The cost
    is likewise that of the team or, with `cost_unit="agent"`, one number for each agent, which is 0 for those
    that have left. An episode ends with the last agent: it is `truncated` if that agent was, and otherwise
    `terminated`.

    :param env: the task.
    :param cost_unit: "team" for one cost, "agent" for one cost per agent.
    :param spec: the specification from which `gymnasium.make` builds the same environment again.
    :raises ValueError: an agent's observation cannot be flattened, its action space is no box of
        floating-point numbers, or `cost_unit` is "agent" where all agents report the cost of the team.
    """

    @checked()
    def __init__(
        self, env: ParallelCostEnv, *, cost_unit: CostUnit = "team", spec: EnvSpec | None = None
    ) -> None:
        if cost_unit == "agent" and env.shared_cost:
            raise ValueError(
                f"cost_unit must be 'team' for {env.env_id}, whose agents all report the cost of the team, "
                f"got {cost_unit!r}"
            )
        self.env = env
        self.env_id = env.env_id
        self.cost_unit = cost_unit
        self.spec = spec
        self.metadata = env.metadata
        self.render_mode = env.render_mode
        self.agent_names = tuple(env.possible_agents)
        """The agents ``[N]``, in the order of their observations and actions."""
        seen = [_flat_observations(env, name) for name in self.agent_names]
        self._flatten = [
            flat_caster(env.observation_space(name), f"{self.env_id}, {name}") for name in self.agent_names
        ]
        acted = [_box_of_actions(env, name) for name in self.agent_names]
        self.obs_dims = tuple(space.shape[0] for space in seen)
        """``[N]`` numbers that each agent observes."""
        self.act_dims = tuple(int(np.prod(space.shape)) for space in acted)
        """``[N]`` numbers of each agent's action."""
        self._seen, self._acted = _places(self.obs_dims), _places(self.act_dims)
        self._action_shapes = [space.shape for space in acted]
        flags = np.ones(len(seen), np.float32)
        self.observation_space = spaces.Box(
            np.concatenate([*(x.low for x in seen), 0 * flags]),
            np.concatenate([*(x.high for x in seen), flags]),
            dtype=np.float32,
        )
        dtype: Any = np.result_type(*(x.dtype for x in acted))
        self.action_space = spaces.Box(
            np.concatenate([x.low.ravel() for x in acted]).astype(dtype),
            np.concatenate([x.high.ravel() for x in acted]).astype(dtype),
            dtype=dtype,
        )
        self.last_episode: TeamEpisode | None = None
        """The episode that ended last; None before the first end."""
        self._sums = np.zeros((2, len(seen)))
        self._lens = np.zeros(len(seen), dtype=int)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode with all agents; a seed also seeds the action space."""
        super().reset(seed=seed)
        if seed is not None:
            self.action_space.seed(seed)
        observations, _ = self.env.reset(seed=seed, options=options)
        self._sums[:] = 0.0
        self._lens[:] = 0
        return self._joined(observations, self.env.agents), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Make one step of the team.

        :param action: ``[A]``.
        :return: observation ``[O + N]``, reward, terminated, truncated, and the info. In the info `cost` is a
            float or ``[N]``; `agent_rewards` and `agent_costs` are ``[N]``, 0 for agents that have left.
        """
        env = self.env
        present = [i for i, name in enumerate(self.agent_names) if name in env.agents]
        values = np.asarray(action)
        actions = {
            self.agent_names[i]: values[self._acted[i]].reshape(self._action_shapes[i]) for i in present
        }
        observations, rewards, terminations, truncations, infos = env.step(actions)
        numbers = np.zeros((2, len(self.agent_names)))
        for i in present:
            name = self.agent_names[i]
            numbers[:, i] = rewards[name], infos[name]["cost"]
        self._sums += numbers
        self._lens[present] += 1
        over = not env.agents
        if over:
            returns, costs = self._sums.tolist()
            self.last_episode = TeamEpisode(tuple(returns), tuple(costs), tuple(self._lens.tolist()))
        # What follows a time limit has a value, so the state at the limit shows the agents that it stopped.
        cut = [x for x in truncations if truncations[x] and not terminations[x]] if over else []
        truncated = bool(cut)
        reward = numbers[0, present[0]] if env.shared_reward else numbers[0].sum()
        if self.cost_unit == "agent":
            cost: Any = numbers[1].astype(np.float32)
        else:
            cost = float(numbers[1, present[0]] if env.shared_cost else numbers[1].sum())
        info = {"cost": cost, "agent_rewards": numbers[0], "agent_costs": numbers[1]}
        obs = self._joined(observations, cut or env.agents)
        return obs, float(reward), over and not truncated, truncated, info

    def _joined(self, observations: dict[str, Any], present: list[str]) -> np.ndarray:
        """Join the observations of the agents that are in the episode, ``[O + N]``."""
        joined = np.zeros(self.observation_space.shape or (), np.float32)
        first_flag = len(joined) - len(self.agent_names)
        for i, name in enumerate(self.agent_names):
            if name in present:
                joined[self._seen[i]] = self._flatten[i](observations[name])
                joined[first_flag + i] = 1.0
        return joined

    def render(self) -> Any:
        """Return a frame in mode "rgb_array"."""
        return self.env.render()

    def close(self) -> None:
        """Close the task."""
        self.env.close()


def _flat_observations(env: ParallelCostEnv, name: str) -> spaces.Box:
    """Return the space of an agent's observations as one vector."""
    space = env.observation_space(name)
    unflat = unflat_part(space)
    if unflat is not None:
        raise ValueError(
            f"{env.env_id}, {name}: {unflat}; leave it out of the observations, which become a vector"
        )
    return flat_space(space)


def _box_of_actions(env: ParallelCostEnv, name: str) -> Any:
    """Return an agent's action space, which must be a box of floating-point numbers."""
    space = env.action_space(name)
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"{env.env_id}: the actions of {name} must be a Box of floating-point numbers, got {space}"
        )
    return space


def _places(sizes: tuple[int, ...]) -> list[slice]:
    """Return where each agent's numbers are in the joint vector."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
