"""Environments that miss one thing each, for the checks of `fsrl_ext.env.check_env`.

Each is the :class:`SoundEnv` with one fault. ``FAULTS`` says which check fails, what its message says, and
what the line that mends the environment has.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

HORIZON = 12


class SoundEnv(gym.Env):
    """Walks on a line with noise, and keeps the contract; the cost is 1 on the right of 0."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "rgb_array", "ansi"], "render_fps": 10}
    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space: spaces.Space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.time = self.np_random.uniform(-0.5, 0.5), 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.x += 0.1 * float(np.ravel(action)[0]) + 0.01 * self.np_random.normal()
        self.time += 1
        return self.observe(), self.x, False, False, {"cost": float(self.x > 0)}

    def observe(self) -> Any:
        return np.array([self.x, self.time / HORIZON], np.float32)

    def render(self) -> Any:
        return "x" if self.render_mode == "ansi" else np.zeros((8, 8, 3), np.uint8)


def answer(**changes: Any) -> Any:
    """Return a method `step` that changes parts of what the sound one returns."""

    def step(self: Any, action: Any) -> Any:
        names = ("observation", "reward", "terminated", "truncated", "info")
        values = dict(zip(names, SoundEnv.step(self, action), strict=True))
        for name, change in changes.items():
            values[name] = change(self, values[name])
        return tuple(values.values())

    return step


def broken(**attributes: Any) -> type[SoundEnv]:
    """Return a class that differs from the sound one in these attributes."""
    return type("BrokenEnv", (SoundEnv,), attributes)


class OldResetEnv(SoundEnv):
    """Takes no seed."""

    def reset(self) -> Any:
        return super().reset()


class SeedlessEnv(SoundEnv):
    """Takes the seed and does nothing with it."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset()


class RememberingEnv(SoundEnv):
    """Never forgets how many episodes it has begun, so that a new one differs from a used one."""

    begun = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is None or not self.begun:
            self.begun += 1
        return super().reset(seed=seed)

    def observe(self) -> Any:
        return np.array([self.x, min(self.begun, 3)], np.float32)


class SharedStateEnv(SoundEnv):
    """Keeps its place in the class, so that two environments move each other."""

    place: ClassVar[list[float]] = [0.0]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        answer = super().reset(seed=seed)
        self.place[0] = self.x
        return answer

    def step(self, action: Any) -> Any:
        self.x = self.place[0]
        answer = super().step(action)
        self.place[0] = self.x
        return answer


class TimidEnv(SoundEnv):
    """Refuses the highest action of its space."""

    def step(self, action: Any) -> Any:
        if action[0] >= 1.0:
            raise RuntimeError("too fast")
        return super().step(action)


class NoModeEnv(SoundEnv):
    """Claims modes that its constructor does not know."""

    def __init__(self) -> None:
        super().__init__()


class LockedEnv(SoundEnv):
    """Returns an info that cannot be sent between processes."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "hook": lambda: None}


class NoSpaceEnv(SoundEnv):
    """Cannot be built."""

    def __init__(self, render_mode: str | None = None) -> None:
        raise AttributeError("no attribute 'observation_space'")


IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
CAMERA = spaces.Dict({"camera": IMAGE, "state": spaces.Box(-1.0, 1.0, (2,), np.float32)})


def picture() -> np.ndarray:
    return np.full((8, 8, 3), 9, np.uint8)


def view() -> dict[str, np.ndarray]:
    return {"camera": picture(), "state": np.zeros(2, np.float32)}


LIMIT = {"max_episode_steps": HORIZON}


def box(low: float, high: float, shape: tuple[int, ...] = (1,), dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


# Name, class, arguments of register_task, check, part of the message, part of the line.
FAULTS: tuple[tuple[str, type[SoundEnv], dict[str, Any], str, str, str], ...] = (
    ("unbuilt", NoSpaceEnv, LIMIT, "built", "no attribute", "self.observation_space ="),
    ("image", broken(observation_space=IMAGE, observe=lambda self: picture() / 255), LIMIT,
     "reset", "must be uint8 [8, 8, 3], got float64", "np.asarray(image, np.uint8)"),
    ("camera", broken(observation_space=CAMERA, observe=lambda self: view()), LIMIT,
     "observation space", "part ['camera'] is an image", "FilterObservation(env, ['state'])"),
    ("gears", broken(action_space=spaces.MultiDiscrete([2, 3])), LIMIT,
     "action space", "flat Box or Discrete", "Discrete(6)  # and np.unravel_index(action, (2, 3))"),
    ("switches", broken(action_space=spaces.MultiBinary(3)), LIMIT,
     "action space", "got MultiBinary(3)", "Discrete(8)"),
    ("tuple", broken(action_space=spaces.Tuple([box(-1, 1)])), LIMIT,
     "action space", "flat Box or Discrete", "Box(-1.0"),
    ("whole", broken(action_space=box(0, 3, dtype=np.int64)), LIMIT, "action space", "int64", "float32"),
    ("matrix", broken(action_space=box(-1, 1, (2, 2))), LIMIT, "action space", "(2, 2)", "(4,)"),
    ("endless", broken(action_space=box(-np.inf, np.inf)), LIMIT, "action space", "bounded", "Box(-1.0, 1.0"),
    ("narrow", broken(action_space=box(1, 1)), LIMIT, "action space", "low must be < high", "Box(-1.0, 1.0"),
    ("old_reset", OldResetEnv, LIMIT, "reset", "seed", "seed=None, options=None"),
    ("no_info", broken(reset=lambda self, **kwargs: SoundEnv.reset(self, **kwargs)[0]), LIMIT,
     "reset", "without info", "return observation, {}"),
    ("long", broken(observe=lambda self: np.zeros(3, np.float32)), LIMIT, "reset", "is not in", "(3,)"),
    ("wide", broken(observation_space=box(5, 6, (2,))), LIMIT, "reset", "out of bounds", "-np.inf"),
    ("nan", broken(step=answer(observation=lambda self, x: x * np.nan)), LIMIT,
     "step", "finite", "nan_to_num"),
    ("four", broken(step=lambda self, a: SoundEnv.step(self, a)[:4]), LIMIT, "step", "4 values", "truncated"),
    ("raises", broken(step=lambda self, a: 1 / 0), LIMIT, "step", "ZeroDivisionError", "breakpoint"),
    ("text", broken(step=answer(reward=lambda self, x: "1")), LIMIT, "step", "a number", "float(reward)"),
    ("inf_reward", broken(step=answer(reward=lambda self, x: np.inf)), LIMIT, "step", "finite", "reward ="),
    ("end", broken(step=answer(terminated=lambda self, x: 0.5)), LIMIT, "step", "a bool", "bool(terminated)"),
    ("no_cost", broken(step=answer(info=lambda self, x: {})), LIMIT,
     "costs", 'no "cost"', 'info["cost"] ='),
    ("nan_cost", broken(step=answer(info=lambda self, x: {"cost": np.nan})), LIMIT,
     "costs", "must be finite", "nan_to_num"),
    ("names", broken(step=answer(info=lambda self, x: {"cost": {"ab"[self.time % 2]: 1.0}})), LIMIT,
     "costs", "as in the first step", 'info["cost"]'),
    ("two", SoundEnv, {**LIMIT, "num_costs": 2}, "costs", "expected 2", 'info["cost"]'),
    ("timid", TimidEnv, LIMIT, "action bounds", "too fast", "np.clip"),
    ("no_limit", SoundEnv, {}, "time limit", "no time limit", "max_episode_steps="),
    ("ends", broken(step=answer(terminated=lambda self, x: self.time == HORIZON)), LIMIT,
     "time limit", "are terminated", "False, False"),
    ("cuts", broken(step=answer(truncated=lambda self, x: self.time == 5)), LIMIT,
     "time limit", "truncated at step 5", "max_episode_steps=5"),
    ("early", broken(step=answer(terminated=lambda self, x: self.time == 5)),
     {**LIMIT, "can_terminate": False},
     "time limit", "can_terminate is False", "can_terminate=True"),
    ("no_mode", NoModeEnv, LIMIT, "render modes", "render_mode", "def __init__(self, render_mode=None)"),
    ("no_fps", broken(metadata={"render_modes": ["rgb_array"]}), LIMIT, "render modes", "render_fps", "30}"),
    ("float", broken(render=lambda self: np.zeros((8, 8, 3))), LIMIT, "render modes", "float64", "np.uint8"),
    ("seedless", SeedlessEnv, LIMIT, "seeds", "the reset with a seed", "super().reset(seed=seed)"),
    ("noise", broken(step=answer(reward=lambda self, x: np.random.random())), LIMIT,  # noqa: NPY002
     "seeds", "the reward of step 1", "self.np_random"),
    ("remembers", RememberingEnv, LIMIT, "replay", "cannot be resumed", "in reset"),
    ("shared", SharedStateEnv, LIMIT, "vector", "another one", "in the instance"),
)  # fmt: skip
