"""Check the spaces of observations and actions."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from fsrl_ext.env.check.findings import CheckFailedError, raised
from fsrl_ext.env.observations import is_image, unflat_fix, unflat_part

DISCRETE_ALGORITHMS = ("cvpo", "cpo", "trpo_lag", "ppo_lag", "focops", "trpo", "ppo")
"""The algorithms that learn discrete actions, in the order of `fsrl-ext list`."""


def check_observation_space(env: gymnasium.Env) -> str:
    """Check that observations are images or vectors of numbers, or that `make` makes them a vector."""
    space = env.observation_space
    if is_image(space):
        return f"images {list(space.shape)}, for --network cnn"
    unflat = unflat_part(space)
    if unflat is not None:
        raise CheckFailedError(unflat, unflat_fix(space))
    return _numbers(space)


def check_action_space(env: gymnasium.Env) -> str:
    """Check that actions are a flat, bounded box of floating-point numbers, or discrete."""
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        return f"{space}, for {', '.join(DISCRETE_ALGORITHMS)}"
    sizes = _sizes(space)
    if sizes is not None:
        raise CheckFailedError(
            f"the action space must be a flat Box or Discrete, got {space}",
            f"self.action_space = gymnasium.spaces.Discrete({int(np.prod(sizes))})"
            f"  # and np.unravel_index(action, {sizes}) in step",
        )
    shape = space.shape if isinstance(space, spaces.Box) and len(space.shape) == 1 else (1,)
    fix = f"self.action_space = gymnasium.spaces.Box(-1.0, 1.0, {shape}, np.float32)"
    if not isinstance(space, spaces.Box):
        raise CheckFailedError(
            f"the action space must be a flat Box or Discrete, got {space}",
            f"{fix}  # and map the numbers in step",
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise CheckFailedError(
            f"the actions must be floating-point numbers, got {space.dtype} in {space}", fix
        )
    if len(space.shape) != 1 or not space.shape[0]:
        size = int(np.prod(space.shape)) or 1
        raise CheckFailedError(
            f"the actions must be a vector, got the shape {space.shape} of {space}",
            f"self.action_space = gymnasium.spaces.Box(-1.0, 1.0, ({size},), np.float32)"
            f"  # and action.reshape({space.shape}) in step",
        )
    if not space.is_bounded():
        raise CheckFailedError(f"the action space must be bounded, got {space}", fix)
    if not np.all(space.low < space.high):
        raise CheckFailedError(f"low must be < high in every dimension of the action space, got {space}", fix)
    return _numbers(space)


def _sizes(space: spaces.Space) -> tuple[int, ...] | None:
    """Return the numbers of choices of a space of several discrete ones; None for another space."""
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(space.nvec.ravel().tolist())
    if isinstance(space, spaces.MultiBinary):
        return (2,) * int(np.prod(space.shape))
    return None


def check_bounds(env: gymnasium.Env, seed: int) -> str:
    """Check that the environment takes the lowest and the highest action, or the first and the last."""
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        fix = "self.action_space = gymnasium.spaces.Discrete(n)  # with the n actions that step takes"
        first = np.int64(space.start)
        ends: dict[str, Any] = {f"the action {action}": action for action in (first, first + space.n - 1)}
    else:
        assert isinstance(space, spaces.Box)
        fix = "action = np.clip(action, -0.9, 0.9)  # in step, with the bounds that the simulator takes"
        ends = {"action_space.low": space.low, "action_space.high": space.high}
    for name, action in ends.items():
        env.reset(seed=seed)
        try:
            answer: Any = env.step(action.copy())
            observation, reward = answer[:2]
        except Exception as error:  # of any kind, because the code is the user's
            raise CheckFailedError(f"step raised {raised(error)} for {name}", fix) from error
        if not (finite(observation) and np.isfinite(reward)):
            raise CheckFailedError(
                f"the observation and the reward must be finite after {name}, got "
                f"{observation!r} and {reward!r}",
                fix,
            )
    which = "first and the last" if isinstance(space, spaces.Discrete) else "lowest and the highest"
    return f"steps with the {which} action"


def _numbers(space: spaces.Space) -> str:
    text = str(space)
    return text if len(text) <= 60 else f"{spaces.flatdim(space)} numbers"


def finite(observation: object) -> bool:
    """Tell whether an observation has neither NaN nor infinity, in any part."""
    if isinstance(observation, dict):
        return all(map(finite, observation.values()))
    if isinstance(observation, tuple | list):
        return all(map(finite, observation))
    values = np.asarray(observation)
    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())
