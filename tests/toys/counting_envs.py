"""Environments that count their episodes and steps, so that every stored number says where it belongs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def length(index: int, episode: int) -> int:
    """Return the number of steps of an episode of :class:`CountingEnv`."""
    return 2 + (3 * index + 2 * episode) % 5


class CountingEnv(gym.Env):
    """Has episodes whose every number is known in advance.

    Episode ``k`` of environment ``e`` lasts ``2 + (3 e + 2 k) % 5`` steps (2 to 6). The observation is
    ``[e, k, t, 0.5]``, so every stored transition says where it belongs.

    :param index: ``e``.
    :param num_costs: C.
    :param first_episode: ``k`` after the first reset.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (4,))
    action_space = spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, index: int, num_costs: int = 1, first_episode: int = 0) -> None:
        self.index, self.num_costs = index, num_costs
        self.episode, self.t = first_episode - 1, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._obs(), {"start": True}

    def step(self, action: np.ndarray) -> Any:
        rew = 1.0 + self.index + 0.1 * self.t + 10.0 * self.episode
        hazard = float((self.t + self.episode + self.index) % 3 == 0)
        costs = [hazard * (c + 1) + 0.3 * c for c in range(self.num_costs)]
        self.t += 1
        done = self.t >= length(self.index, self.episode)
        terminated = done and self.episode % 2 == 0
        info = {"cost": costs[0] if self.num_costs == 1 else np.array(costs), "extra": self.t}
        return self._obs(), rew, terminated, done and not terminated, info

    def _obs(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.t, 0.5])


class RestartingEnv(CountingEnv):
    """Repeats itself: a seed starts the count of episodes of a :class:`CountingEnv` anew."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        if seed is not None:
            self.episode = -1
        return super().reset(seed=seed, options=options)


class NoisyCountingEnv(CountingEnv):
    """Is a :class:`CountingEnv` whose first observation, reward and cost depend on seed and action."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        super().reset(seed=seed)
        return self._obs() + self.np_random.normal(size=4), {}

    def step(self, action: np.ndarray) -> Any:
        obs, rew, terminated, truncated, info = super().step(action)
        info["cost"] = self.np_random.random() + float(action[0] > 0)
        return obs, rew + float(action[1]), terminated, truncated, info


class SeedShowingEnv(CountingEnv):
    """Observes ``[e, last seed, draw, t]``; a seed starts the count of episodes anew.

    The draw depends on the seed and on the step's action.
    """

    seed, draw = -1, 0.0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        if seed is not None:
            self.seed, self.episode, self.draw = seed, -1, 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> Any:
        self.draw = float(self.np_random.normal() + action[0])
        return super().step(action)

    def _obs(self) -> np.ndarray:
        return np.array([self.index, self.seed, self.draw, self.t])


class BrokenEnv(CountingEnv):
    """Is a :class:`CountingEnv` that returns something else from its third step on.

    :param breaks: called with the list of a step's results, which it changes.
    """

    def __init__(self, index: int, breaks: Callable[[list], Any], num_costs: int = 1) -> None:
        super().__init__(index, num_costs)
        self.breaks, self.steps = breaks, 0

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        result = list(super().step(action))
        if self.steps >= 3:
            self.breaks(result)
        return tuple(result)


class AwkwardError(Exception):
    """Can be pickled but not read again, because its constructor takes other arguments than its message."""

    def __init__(self, place: str, number: int) -> None:
        super().__init__(f"{place} {number} is broken")


class FailingEnv(CountingEnv):
    """Is a :class:`CountingEnv` that fails once, in environment 1.

    :param index: ``e``.
    :param where: ``"step"``, which fails in the fourth step, or ``"reset"``, which fails in the second one.
    :param error: what it raises; None stands for the end of its process.
    """

    def __init__(self, index: int, where: str, error: BaseException | None) -> None:
        super().__init__(index)
        self.where, self.error = where, error
        self.calls = {"step": 0, "reset": 0}

    def _fail(self, where: str, last: int) -> None:
        self.calls[where] += 1
        if self.index == 1 and self.where == where and self.calls[where] == last:
            if self.error is None:
                os._exit(3)
            raise self.error

    def step(self, action: np.ndarray) -> Any:
        self._fail("step", 4)
        return super().step(action)

    def reset(self, **kwargs: Any) -> Any:
        self._fail("reset", 2)
        return super().reset(**kwargs)


class SleepyEnv(CountingEnv):
    """Is a :class:`CountingEnv` that sleeps for some seconds in its fourth step, in environment 1."""

    steps = 0

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        if self.index == 1 and self.steps == 4:
            time.sleep(3.0)
        return super().step(action)


# What all instances of MeddlingEnv with as many costs return: observation and info.
SHARED = {c: (np.zeros(4), {"cost": np.zeros(c)}) for c in (1, 2)}


class MeddlingEnv(CountingEnv):
    """Is a :class:`CountingEnv` that changes its action, and what it and its neighbours returned before.

    :param index: ``e``.
    :param num_costs: C.
    :param meddles: whether it does; the numbers are the same otherwise.
    """

    def __init__(self, index: int, num_costs: int = 1, meddles: bool = True) -> None:
        super().__init__(index, num_costs)
        self.meddles = meddles
        self.seen, self.info = SHARED[num_costs]

    def reset(self, **kwargs: Any) -> Any:
        obs, info = super().reset(**kwargs)
        return self._own(obs), info

    def step(self, action: np.ndarray) -> Any:
        self.moved = float(action.sum())
        if self.meddles:
            action *= -7.0
        obs, rew, terminated, truncated, info = super().step(action)
        obs[3] = self.moved
        if not self.meddles:
            return obs, rew, terminated, truncated, info
        self.info["cost"][:] = info["cost"]
        return self._own(obs), rew, terminated, truncated, self.info

    def _own(self, obs: np.ndarray) -> np.ndarray:
        if not self.meddles:
            return obs
        self.seen[:] = obs
        return self.seen


class BadStartEnv(CountingEnv):
    """Is a :class:`CountingEnv` whose episodes begin with an observation of NaN in environment 1."""

    def _obs(self) -> np.ndarray:
        return super()._obs() + (np.nan if self.index == 1 and self.t == 0 else 0.0)


class DictEnv(CountingEnv):
    """Observes a dictionary, which holds a NaN after the first step of episode 1."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,))})

    def _obs(self) -> dict[str, np.ndarray]:
        bad = self.episode == 1 and self.t == 1
        return {"a": np.array([np.nan if bad else 0.5, 1.0]), "b": np.array([self.t])}
