"""Define what `make` promises of every task of several agents, and the class that keeps the promise."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium import spaces
from pettingzoo import ParallelEnv

from fsrl_ext.env.cost_reader import ContractError, CostReader
from fsrl_ext.env.observations import float32_caster, float32_space
from fsrl_ext.errors import checked

Answer = tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]


class ParallelCostEnv(ParallelEnv):
    """Keeps the contract of this package around a `pettingzoo.ParallelEnv` whose infos have costs.

    - Observations are float32, in the spaces and in the values.
    - `info[agent]["cost"]` is a float for every agent that took part in a step.
    - `agents` are those that are still in the episode. An agent that terminates or is truncated leaves, and
      the episode ends when all agents have left.
    - `reset(seed=s)` seeds the environment and the action spaces, and the same seed gives the same episodes.
    - With a time limit, all agents that are left are `truncated` at that step.

    Two entries of the environment's `metadata` say what the agents' numbers mean, False where they are
    absent: "shared_cost", that every agent reports the cost of the whole team, and "shared_reward", that
    every agent is paid the reward of the whole team.

    :param env: the environment.
    :param env_id: its name in error messages.
    :param max_episode_steps: the time limit; None takes the environment's own attribute `max_cycles`, if it
        has one, and leaves the limit to the environment.
    :raises ContractError: the environment has no list `possible_agents`.
    """

    @checked(at_least_one=("max_episode_steps",))
    def __init__(self, env: ParallelEnv, *, env_id: str, max_episode_steps: int | None = None) -> None:
        names = getattr(env, "possible_agents", None)
        if not isinstance(names, list | tuple) or not names:
            raise ContractError(f"{env_id}: possible_agents must list the agents' names, got {names!r}")
        self.env = env
        self.env_id = env_id
        self.metadata = dict(getattr(env, "metadata", {}))
        self.render_mode = getattr(env, "render_mode", None)
        self.possible_agents = list(names)
        self.agents: list[str] = []
        self.shared_cost = bool(self.metadata.get("shared_cost", False))
        self.shared_reward = bool(self.metadata.get("shared_reward", False))
        self.max_episode_steps = max_episode_steps or getattr(env, "max_cycles", None)
        self._horizon = max_episode_steps
        self._elapsed = 0
        own = {name: env.observation_space(name) for name in self.possible_agents}
        self.observation_spaces = {name: float32_space(space) for name, space in own.items()}
        self.action_spaces = {name: env.action_space(name) for name in self.possible_agents}
        self._casts = {name: float32_caster(space, env_id) for name, space in own.items()}
        self._read_cost = {
            name: CostReader(f"{env_id}, {name}", num_costs=1) for name in self.possible_agents
        }

    def observation_space(self, agent: str) -> spaces.Space:
        """Return the observation space of an agent, the same object at every call."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """Return the action space of an agent, the same object at every call."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start an episode with all agents.

        :param seed: seeds the environment and the action spaces; None continues their streams.
        :param options: passed to the environment.
        :return: observations and infos by agent.
        :raises ContractError: the environment returned something else than two dictionaries, or has agents
            without an observation or with an unknown name.
        """
        if seed is not None:
            for i, space in enumerate(self.action_spaces.values()):
                space.seed(seed + i)
        answer = self.env.reset(seed=seed, options=options)
        if not (isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(x, dict) for x in answer)):
            raise ContractError(
                f"{self.env_id}: reset must return (observations, infos), two dictionaries, "
                f"got {_described(answer)}"
            )
        observations, infos = answer
        self.agents = list(self.env.agents)
        self._elapsed = 0
        self._check_names(self.agents, "agents")
        self._check_complete(observations, "observations of reset")
        return (
            {name: self._casts[name](observations[name]) for name in self.agents},
            {name: dict(infos.get(name, {})) for name in self.agents},
        )

    def step(self, actions: Mapping[str, Any]) -> Answer:
        """Make one step of all agents that are in the episode.

        :param actions: one for each name in `agents`.
        :return: observations, rewards, terminations, truncations and infos of the agents that took the step.
        :raises gymnasium.error.ResetNeeded: there was no `reset` before, or the episode has ended.
        :raises ContractError: an action is missing, or the environment returned something else than five
            dictionaries with entries for these agents.
        :raises CostError: the cost of an agent is missing or is not one number.
        """
        present = self.agents
        if not present:
            raise gymnasium.error.ResetNeeded(f"{self.env_id}: call reset() before step()")
        self._check_complete(actions, "actions")
        answer: Any = self.env.step({name: actions[name] for name in present})
        if not (isinstance(answer, tuple) and len(answer) == 5 and all(isinstance(x, dict) for x in answer)):
            raise ContractError(
                f"{self.env_id}: step must return (observations, rewards, terminations, truncations, infos), "
                f"five dictionaries, got {_described(answer)}"
            )
        observations, rewards, terminations, truncations, infos = answer
        for part, what in ((observations, "observations"), (rewards, "rewards"), (infos, "infos")):
            self._check_complete(part, f"{what} of step")
        self._elapsed += 1
        over = self._horizon is not None and self._elapsed >= self._horizon
        left = set(self.env.agents)
        joined = left.difference(present)
        if joined:
            raise ContractError(f"{self.env_id}: no agent may join an episode, got {sorted(joined)}")
        # An agent that the environment no longer lists has left, whatever the two dictionaries say.
        ended = {name: bool(terminations.get(name, False)) for name in present}
        cut = {
            name: over or bool(truncations.get(name, False)) or not (ended[name] or name in left)
            for name in present
        }
        step_infos = {
            name: {**infos[name], "cost": self._read_cost[name](infos[name], self._elapsed)}
            for name in present
        }
        self.agents = [name for name in present if not (ended[name] or cut[name])]
        return (
            {name: self._casts[name](observations[name]) for name in present},
            {name: float(rewards[name]) for name in present},
            ended,
            cut,
            step_infos,
        )

    def _check_complete(self, entries: Mapping[str, Any], what: str) -> None:
        missing = [name for name in self.agents if name not in entries]
        if missing:
            raise ContractError(
                f"{self.env_id}: {what} must have an entry for each of the agents {self.agents}, "
                f"got none for {missing}"
            )

    def _check_names(self, names: list[str], what: str) -> None:
        unknown = sorted(set(names).difference(self.possible_agents))
        if unknown or not names:
            raise ContractError(
                f"{self.env_id}: {what} must be some of possible_agents={self.possible_agents} after a "
                f"reset, got {names}"
            )

    def render(self) -> Any:
        """Return a frame in mode "rgb_array"."""
        return self.env.render()

    def state(self) -> Any:
        """Return the state of the whole environment, where the environment has one."""
        return self.env.state()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def make_parallel(
    id: str,
    build: Callable[..., Any],
    render_mode: str | None,
    max_episode_steps: int | None,
    arguments: Mapping[str, Any],
) -> ParallelCostEnv:
    """Build a user's own task of several agents.

    :param id: the task's name, "module:function".
    :param build: the function.
    :param arguments: passed to it, with `render_mode` where that is not None.
    :raises ContractError: the function returned something else than a `pettingzoo.ParallelEnv`.
    """
    drawing = {} if render_mode is None else {"render_mode": render_mode}
    env = build(**arguments, **drawing)
    if not isinstance(env, ParallelEnv):
        hint = "; register_task gives a gymnasium.Env an id" if isinstance(env, gymnasium.Env) else ""
        raise ContractError(
            f"{id} must build a pettingzoo.ParallelEnv, got an object of type {type(env).__name__}{hint}"
        )
    return ParallelCostEnv(env, env_id=id, max_episode_steps=max_episode_steps)


def _described(answer: Any) -> str:
    if not isinstance(answer, tuple):
        return f"an object of type {type(answer).__name__}"
    return f"{len(answer)} values of types {', '.join(type(x).__name__ for x in answer)}"
