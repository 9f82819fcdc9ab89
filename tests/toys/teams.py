"""Tasks of several agents: small enough that their optimum is known, or broken in one way each."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

HORIZON = 40
NAMES = ("slow", "fast")


class ThrottlesEnv(ParallelEnv):
    """Pays two agents for their throttles, and charges them for these.

    A throttle ``x = (1 + a) / 2`` of the agent "slow" pays ``1 - (1 - x)^2`` in a step, and one of the agent
    "fast" twice as much; each costs ``10 x / T``. The agent "fast" has two throttles, of which each counts
    half, and sees one number more.

    :param leaves_at: the step with which the agent "slow" terminates; None if it stays to the end.
    :param shared: every agent is paid the reward, and reports the cost, of both.
    :param max_cycles: ``T``, after which both agents are truncated.
    :param render_mode: "rgb_array" or None.
    """

    def __init__(
        self,
        leaves_at: int | None = None,
        shared: bool = False,
        max_cycles: int = HORIZON,
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {"name": "throttles", "render_modes": ["rgb_array"], "render_fps": 10}
        if shared:
            self.metadata |= {"shared_cost": True, "shared_reward": True}
        self.possible_agents = list(NAMES)
        self.agents: list[str] = []
        self.leaves_at, self.shared, self.max_cycles = leaves_at, shared, max_cycles
        self.render_mode = render_mode
        self.spaces = {name: spaces.Box(-1.0, 1.0, (2 + i,), np.float64) for i, name in enumerate(NAMES)}
        self.actions = {name: spaces.Box(-1.0, 1.0, (1 + i,), np.float32) for i, name in enumerate(NAMES)}

    def observation_space(self, agent: str) -> spaces.Space:
        return self.spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self.actions[agent]

    def observe(self) -> dict[str, Any]:
        return {name: self.rng.uniform(-1, 1, 2 + NAMES.index(name)) for name in self.agents}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple:
        if seed is not None or not hasattr(self, "rng"):
            self.rng = np.random.default_rng(seed)
        self.agents, self.steps = list(NAMES), 0
        return self.observe(), {name: {} for name in NAMES}

    def step(self, actions: dict[str, Any]) -> tuple:
        self.steps += 1
        observations = self.observe()
        throttles = {name: (1 + np.asarray(actions[name], float)) / 2 for name in self.agents}
        rewards = {
            name: (1 + NAMES.index(name)) * float(np.mean(1 - (1 - x) ** 2)) for name, x in throttles.items()
        }
        costs = {name: 10 * float(np.mean(x)) / self.max_cycles for name, x in throttles.items()}
        if self.shared:
            rewards = dict.fromkeys(rewards, sum(rewards.values()))
            costs = dict.fromkeys(costs, sum(costs.values()))
        left = {name: name == "slow" and self.steps == self.leaves_at for name in self.agents}
        over = dict.fromkeys(self.agents, self.steps >= self.max_cycles)
        infos = {name: {"cost": costs[name]} for name in self.agents}
        self.agents = [name for name in self.agents if not (left[name] or over[name])]
        return observations, rewards, left, over, infos

    def render(self) -> Any:
        return np.full((16, 16, 3), self.steps, np.uint8)


def team_optimum(limit: float) -> tuple[float, float, float]:
    """Return the throttles of "slow" and "fast", and the team's return, of the best policy within a limit.

    Rewards are concave and costs linear in the throttles, so that constant throttles are best. They pay alike
    for one more unit of cost: ``1 - x = 2 (1 - y)``, where ``10 (x + y)`` is the limit.

    :param limit: on the team's cost of an episode, from 5, below which the agent "slow" stands still, to 20.
    """
    price = (2 - limit / 10) / 1.5
    return 1 - price, 1 - price / 2, team_return(1 - price, 1 - price / 2)


def team_return(slow: float, fast: float) -> float:
    """Return the team's return for constant throttles."""
    return HORIZON * (1 - (1 - slow) ** 2 + 2 * (1 - (1 - fast) ** 2))


def make_throttles(**arguments: Any) -> ThrottlesEnv:
    return ThrottlesEnv(**arguments)


def make_leaver(**arguments: Any) -> ThrottlesEnv:
    return ThrottlesEnv(leaves_at=7, **arguments)


def make_shared(**arguments: Any) -> ThrottlesEnv:
    return ThrottlesEnv(shared=True, **arguments)


def make_single(**arguments: Any) -> gym.Env:
    return gym.Env()


NOT_CALLABLE = 3


def make_numbers() -> int:
    return 3


class SwappedEnv(ThrottlesEnv):
    """Is a :class:`ThrottlesEnv` whose agent "fast" comes first."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.possible_agents = list(reversed(NAMES))


def make_swapped(**arguments: Any) -> ThrottlesEnv:
    return SwappedEnv(**arguments)


def make_endless(**arguments: Any) -> ThrottlesEnv:
    env = ThrottlesEnv(**arguments)
    del env.max_cycles
    return env
