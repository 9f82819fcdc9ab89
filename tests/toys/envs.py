"""Toy environments: one step is a few operations, and every number can be checked by hand."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def halving_costs(cost: float, num_costs: int) -> float | np.ndarray:
    """Return the cost or, for ``C > 1`` costs, ``[C]`` costs of which each is half of the one before."""
    return cost if num_costs == 1 else cost * 0.5 ** np.arange(num_costs)


class NoiseEnv(gym.Env):
    """Shows two uniform random numbers in every step; the base of the environments with one state."""

    def __init__(self, num_costs: int = 1, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space: spaces.Space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.num_costs, self.render_mode = num_costs, render_mode

    def observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        return self.observe(), {}


class LineEnv(NoiseEnv):
    """Pays the action ``a`` in [-1, 1] and costs ``(1 + a) / 2``.

    With T steps and a limit L on the episode's cost, the best policy always takes ``a = 2 L / T - 1``.

    :param num_costs: C; each further cost is half of the one before.
    :param nan_at: the step, counted over all episodes, whose reward is NaN.
    :param render_mode: any mode is accepted, and the environment's own stays None: it cannot be drawn.
    """

    def __init__(self, num_costs: int = 1, nan_at: int | None = None, render_mode: str | None = None) -> None:
        super().__init__(num_costs)
        self.nan_at, self.steps = nan_at, 0

    def step(self, action: np.ndarray) -> tuple:
        self.steps += 1
        a = float(action[0])
        reward = np.nan if self.steps == self.nan_at else a
        return self.observe(), reward, False, False, {"cost": halving_costs((1 + a) / 2, self.num_costs)}


class NaNCostEnv(LineEnv):
    """Is a :class:`LineEnv` whose cost is NaN in one step.

    :param nan_at: the step, counted over all episodes.
    """

    def step(self, action: np.ndarray) -> tuple:
        nan_at, self.nan_at = self.nan_at, None
        obs, reward, terminated, truncated, info = super().step(action)
        self.nan_at = nan_at
        return obs, reward, terminated, truncated, {"cost": np.nan} if self.steps == nan_at else info


class FailingEnv(LineEnv):
    """Is a :class:`LineEnv` that fails in one step.

    :param fail_at: the step, counted over all episodes.
    :param exit_code: with which the process ends; None raises an exception instead.
    """

    def __init__(self, fail_at: int, exit_code: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fail_at, self.exit_code = fail_at, exit_code

    def step(self, action: np.ndarray) -> tuple:
        if self.steps == self.fail_at:
            if self.exit_code is not None:
                os._exit(self.exit_code)
            self._divide()
        return super().step(action)

    def _divide(self) -> float:
        return 1 / 0


class EarlyEndEnv(LineEnv):
    """Is a :class:`LineEnv` whose episodes terminate after three steps."""

    def reset(self, **kwargs: Any) -> tuple:
        self.left = 3
        return super().reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple:
        self.left -= 1
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, self.left == 0, truncated, info


class SeedLengthEnv(LineEnv):
    """Is a :class:`LineEnv` whose seed decides after how many steps, 1 to 12, the episode terminates."""

    def reset(self, **kwargs: Any) -> tuple:
        obs, info = super().reset(**kwargs)
        self.left = int(self.np_random.integers(1, 13))
        return obs, info

    def step(self, action: np.ndarray) -> tuple:
        self.left -= 1
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, self.left == 0, truncated, info


class ForgetfulEnv(LineEnv):
    """Is a :class:`LineEnv` whose observations no seed repeats."""

    def observe(self) -> np.ndarray:
        return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)


class NoCostEnv(LineEnv):
    """Breaks the contract: its steps come without a cost."""

    def step(self, action: np.ndarray) -> tuple:
        return *super().step(action)[:4], {}


class DiscreteEnv(LineEnv):
    """Is a :class:`LineEnv` with two actions, ``a = -1`` and ``a = 1``.

    :param first: the number of the first action.
    """

    def __init__(self, first: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = spaces.Discrete(2, start=first)
        self.first = first

    def step(self, action: int) -> tuple:
        assert action in self.action_space
        return super().step(np.array([2.0 * (action - self.first) - 1.0]))


class GearsEnv(LineEnv):
    """Is a :class:`LineEnv` whose actions are two numbers of a ``MultiDiscrete`` space."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = spaces.MultiDiscrete([2, 3])

    def step(self, action: np.ndarray) -> tuple:
        return super().step(np.array([2.0 * action[0] - 1.0]))


class DrawnLineEnv(LineEnv):
    """Is a :class:`LineEnv` that can be drawn: the time in the episode is the grey of the frame.

    ``shown`` counts the steps that all instances have shown in a window.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012
    shown = 0

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.render_mode, self.time = render_mode, 0

    def reset(self, **kwargs: Any) -> tuple:
        self.time = 0
        return super().reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple:
        self.time += 1
        DrawnLineEnv.shown += self.render_mode == "human"
        return super().step(action)

    def render(self) -> np.ndarray | None:
        return np.full((33, 48, 3), 10 * self.time, np.uint8) if self.render_mode == "rgb_array" else None


class CreditEnv(LineEnv):
    """Is a :class:`LineEnv` whose costs are all below zero, ``((1 + a) / 2 - 1.5) scale``."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def step(self, action: np.ndarray) -> tuple:
        *rest, info = super().step(action)
        return *rest, {"cost": (info["cost"] - 1.5) * self.scale}


class NamedCostsEnv(LineEnv):
    """Is a :class:`LineEnv` with costs "right", "left" and "left_far"; the last two sum to ``(1 - a) / 2``.

    :param names: of the costs of each step of an episode, in this order; None for all costs.
    """

    def __init__(self, names: Sequence[Sequence[str]] | None = None, render_mode: str | None = None) -> None:
        super().__init__()
        self.names, self.time = names, 0

    def reset(self, **kwargs: Any) -> tuple:
        self.time = 0
        return super().reset(**kwargs)

    def step(self, action: np.ndarray) -> tuple:
        *rest, info = super().step(action)
        right = float(info["cost"])
        costs = {"right": right, "left": 0.75 * (1 - right), "left_far": 0.25 * (1 - right)}
        names = tuple(costs) if self.names is None else self.names[self.time]
        self.time += 1
        return *rest, {"cost": {name: costs[name] for name in names}}


class PictureEnv(NoiseEnv):
    """Shows pictures of a spot, whose place from left to right, in [-1, 1], is the best action.

    The reward is ``1 - |a - place|``. The cost is ``(1 + a) / 2`` where the picture has a red edge, else 0.

    :param side: height and width.
    :param channels_first: whether pictures are ``[3, side, side]`` and not ``[side, side, 3]``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, side: int = 40, channels_first: bool = False, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.side, self.channels_first = side, channels_first
        shape = (3, side, side) if channels_first else (side, side, 3)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def observe(self) -> np.ndarray:
        self.place, self.is_dear = self.np_random.uniform(-1, 1), bool(self.np_random.integers(2))
        self.picture = picture_of(self.place, self.is_dear, self.side)
        return self.picture.transpose(2, 0, 1) if self.channels_first else self.picture

    def step(self, action: np.ndarray) -> tuple:
        a = float(action[0])
        reward, cost = 1 - abs(a - self.place), (1 + a) / 2 * self.is_dear
        return self.observe(), reward, False, False, {"cost": cost}

    def render(self) -> np.ndarray:
        return self.picture


def picture_of(place: float, is_dear: bool, side: int = 40) -> np.ndarray:
    """Return a picture ``[side, side, 3]`` (uint8) of a :class:`PictureEnv`."""
    picture = np.zeros((side, side, 3), np.uint8)
    if is_dear:
        picture[:4, :, 0] = 255
    left = round((place + 1) / 2 * (side - 8))
    picture[16:24, left : left + 8] = 255
    return picture


class DearEnv(NoiseEnv):
    """Pays the action and costs 1 in every step, so that an episode costs as much as it has steps."""

    def step(self, action: np.ndarray) -> tuple:
        return self.observe(), float(action[0]), False, False, {"cost": 1.0}


class GlobalNoiseEnv(LineEnv):
    """Is a :class:`LineEnv` whose rewards draw from the global generators of Python and NumPy, too."""

    def step(self, action: np.ndarray) -> tuple:
        obs, reward, *rest = super().step(action)
        return obs, reward + random.random() + np.random.random(), *rest  # noqa: NPY002 - what is tested


class StrictEnv(NoiseEnv):
    """Accepts only actions that lie in its action space and have its dtype; pays and costs where they lie.

    :param low: lower bounds ``[A]``.
    :param high: upper bounds ``[A]``.
    :param dtype: of the actions.
    """

    def __init__(
        self,
        low: Sequence[float] = (-0.7, -0.1),
        high: Sequence[float] = (0.3, 0.6),
        dtype: str = "float64",
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        self.action_space = spaces.Box(
            np.array(low, dtype), np.array(high, dtype), dtype=np.dtype(dtype).type
        )

    def step(self, action: np.ndarray) -> tuple:
        space = self.action_space
        if not isinstance(action, np.ndarray) or action.dtype != space.dtype or not space.contains(action):
            raise ValueError(f"{action!r} is not in {space} of {space.dtype}")
        share = float((action[0] - space.low[0]) / (space.high[0] - space.low[0]))
        return self.observe(), share, False, False, {"cost": share}


class AimEnv(NoiseEnv):
    """Pays ``1 - (a - target)^2`` and costs ``(1 + a) / 2``.

    Observations do not tell the target, so a policy can learn it only from rewards. A mean cost of ``c`` per
    step allows a mean action of ``2 c - 1``.

    :param target: the best action of the unconstrained task.
    :param num_costs: C; each further cost is half of the one before.
    """

    def __init__(self, target: float, num_costs: int = 1, render_mode: str | None = None) -> None:
        super().__init__(num_costs, render_mode)
        self.target = target

    def step(self, action: np.ndarray) -> tuple:
        a = float(action[0])
        costs = halving_costs((1 + a) / 2, self.num_costs)
        return self.observe(), 1 - (a - self.target) ** 2, False, False, {"cost": costs}


class WalkEnv(gym.Env):
    """Walks on [-1, 1], in float64; the cost is 1 on the right of 0.

    :param costs: what ``info["cost"]`` holds in each step of an episode instead; ``"none"`` leaves it out.
    """

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012

    def __init__(self, costs: Any = None) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.action_space: spaces.Space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.render_mode = None
        self.costs = costs

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-0.5, 0.5, 1)
        self.steps = 0
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.x = np.clip(self.x + 0.1 * np.asarray(action, dtype=np.float64), -1.0, 1.0)
        self.steps += 1
        info = {}
        if self.costs is None:
            info["cost"] = float(self.x[0] > 0)
        elif (cost := self.costs[self.steps - 1]) != "none":
            info["cost"] = cost
        return self.x.copy(), float(self.x[0]), False, False, info


class TwoCostWalkEnv(WalkEnv):
    """Is a :class:`WalkEnv` with a second cost of 1 on the left of 0."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, terminated, truncated, info = super().step(action)
        info["cost"] = [info["cost"], float(self.x[0] < 0)]
        return observation, reward, terminated, truncated, info


class OddEnv(WalkEnv):
    """Is a :class:`WalkEnv` that breaks Gymnasium's contract.

    :param values: number of values that a step returns.
    :param info: whether a reset returns an info.
    """

    def __init__(self, values: int = 5, info: bool = True, render_mode: str | None = None) -> None:
        super().__init__()
        self.values, self.info = values, info

    def reset(self, **kwargs: Any) -> Any:
        answer = super().reset(**kwargs)
        return answer if self.info else answer[0]

    def step(self, action: np.ndarray) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.values == 4:
            return observation, reward, terminated, info
        return (observation, reward, *[info["cost"]] * (self.values - 5), terminated, truncated, info)


class SelfishEnv(WalkEnv):
    """Is a :class:`WalkEnv` that keeps the dictionary that it returns, and adds to its cost.

    :param weights: which it changes.
    """

    def __init__(self, weights: Any = (), render_mode: str | None = None) -> None:
        super().__init__()
        self.weights, self.kept = weights, {"cost": np.zeros(2)}

    def step(self, action: np.ndarray) -> Any:
        self.kept["cost"] += 1 / 3
        if len(self.weights):
            self.weights[0] += 1.0
        return *super().step(action)[:4], self.kept


class PushEnv(gym.Env):
    """Pushes a mass on a line; the reward is its speed, and the cost is 1 beyond the fence on either side."""

    metadata = {"render_modes": ["ansi"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, mass: float, fence: float, render_mode: str | None = None) -> None:
        self.mass, self.fence, self.render_mode = mass, fence, render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.1, 0.1, 2)
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        place, speed = self.state
        speed += 0.1 * float(action[0]) / self.mass
        self.state = np.array([place + 0.1 * speed, speed])
        return self.state, float(speed), False, False, {"cost": float(abs(self.state[0]) > self.fence)}

    def render(self) -> str:
        return f"{self.state[0]:.2f}"
