"""Check what resets and steps return, their costs, and how episodes end."""

from typing import Any

import gymnasium
import numpy as np

from fsrl_ext.env.check.findings import CheckFailedError, SkippedError, raised
from fsrl_ext.env.check.spaces import finite
from fsrl_ext.env.cost_reader import ContractError, CostError, MissingCostError
from fsrl_ext.env.observations import unflat_part

STEPS = 50
"""Steps that each of the checks plays."""

_RESET = "def reset(self, *, seed=None, options=None):"
_STEP = 'return observation, reward, terminated, truncated, {"cost": cost}'
_COST = 'info["cost"] = float(cost)  # in every step'


def check_reset(env: gymnasium.Env, seed: int) -> str:
    """Check that a reset takes a seed and returns an observation of the space, and an info."""
    try:
        observation, _ = env.reset(seed=seed)
        env.reset()
    except ContractError as error:
        raise CheckFailedError(str(error), _fix_of_contract(error, "return observation, {}")) from error
    except Exception as error:  # of any kind, because the code is the user's
        keyword = isinstance(error, TypeError) and "argument" in str(error)
        raise CheckFailedError(
            f"reset raised {raised(error)}", _RESET if keyword else _debug("reset")
        ) from error
    _check_observation(env, observation, "reset")
    return "takes a seed, and returns observation and info"


def check_step(env: gymnasium.Env, seed: int) -> str:
    """Check that steps return five values of the right kinds."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    for t in range(1, STEPS + 1):
        try:
            answer: Any = env.step(env.action_space.sample())
            observation, reward, terminated, truncated, _ = answer
        except CostError:  # the next check says it
            return f"{t} steps"
        except ContractError as error:
            raise CheckFailedError(str(error), _fix_of_contract(error, _STEP)) from error
        except Exception as error:  # of any kind, because the code is the user's
            if _names_costs(error):
                return f"{t} steps"
            raise CheckFailedError(f"step {t} raised {raised(error)}", _debug("step")) from error
        _check_observation(env, observation, f"step {t}")
        if np.asarray(reward).dtype.kind not in "biuf" or np.ndim(reward):
            raise CheckFailedError(
                f"the reward of step {t} must be a number, got {reward!r}", _line("float(reward)")
            )
        if not np.isfinite(reward):
            raise CheckFailedError(
                f"the reward of step {t} must be finite, got {reward}",
                "reward = float(np.nan_to_num(reward))",
            )
        for name, end in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(end, bool | np.bool_):
                raise CheckFailedError(
                    f"{name} must be a bool, got {end!r} in step {t}",
                    _line(ends="bool(terminated), bool(truncated)"),
                )
        if terminated or truncated:
            env.reset()
    return f"{STEPS} steps"


def check_costs(env: gymnasium.Env, seed: int) -> str:
    """Check that every step has finite costs, with the same names."""
    several = hasattr(env.unwrapped, "agent_names")
    fix = 'infos[agent]["cost"] = float(cost)  # for every agent in every step' if several else _COST
    env.reset(seed=seed)
    env.action_space.seed(seed)
    sums: Any = 0.0
    for t in range(1, STEPS + 1):
        try:
            *_, terminated, truncated, info = env.step(env.action_space.sample())
        except MissingCostError as error:
            raise CheckFailedError(str(error), fix) from error
        except CostError as error:
            raise CheckFailedError(
                str(error), f"{fix}, or a dictionary with the same names" if not several else fix
            ) from error
        except ValueError as error:
            raise CheckFailedError(
                str(error), _COST.replace("float(cost)", '{"first": 0.0, "second": 0.0}')
            ) from (error)
        cost = info["cost"]
        if not np.all(np.isfinite(cost)):
            raise CheckFailedError(
                f"the cost of step {t} must be finite, got {cost}",
                'info["cost"] = float(np.nan_to_num(cost))  # or mend what makes it NaN',
            )
        sums = sums + np.asarray(cost)
        if terminated or truncated:
            env.reset()
    names = getattr(env, "cost_names", None)
    shown = ", ".join(f"{x:g}" for x in np.atleast_1d(sums))
    return f"{', '.join(names) if names else 'cost'} in each of {STEPS} steps, {shown} in sum"


def check_ends(env: gymnasium.Env, seed: int, ends_early: bool | None, max_steps: int) -> str:
    """Check that there is a time limit, and that the end by it is truncated, not terminated.

    :param ends_early: whether the task says that episodes can terminate earlier; None if it does not say.
    """
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is None:
        if hasattr(env.unwrapped, "agent_names"):
            raise CheckFailedError("there is no time limit", "self.max_cycles = 100")
        raise CheckFailedError(
            "there is no time limit", "register_task(id, entry_point=..., max_episode_steps=100)"
        )
    if 2 * limit > max_steps:
        raise SkippedError(f"two episodes of {limit:,} steps are more than max_steps={max_steps:,}")
    env.action_space.seed(seed)
    ends = [_play_to_end(env, seed + i, limit) for i in range(2)]
    steps = [end[0] for end in ends]
    if all(step == limit and terminated for step, terminated in ends):
        raise CheckFailedError(
            f"episodes that reach the time limit of {limit} steps are terminated",
            "return observation, reward, False, False, info  # the limit truncates by itself",
        )
    if steps[0] == steps[1] < limit and not any(terminated for _, terminated in ends):
        raise CheckFailedError(
            f"all episodes are truncated at step {steps[0]}, and the time limit is {limit}",
            f"register_task(id, entry_point=..., max_episode_steps={steps[0]})",
        )
    if ends_early is False and any(terminated for _, terminated in ends):
        raise CheckFailedError(
            "an episode was terminated, and can_terminate is False",
            "register_task(id, entry_point=..., can_terminate=True)",
        )
    how = " and ".join(f"{step} ({'terminated' if end else 'truncated'})" for step, end in ends)
    return f"time limit {limit}; two episodes ended at step {how}"


def _play_to_end(env: gymnasium.Env, seed: int, limit: int) -> tuple[int, bool]:
    """Play an episode and return its number of steps, and whether it was terminated."""
    env.reset(seed=seed)
    for t in range(1, limit + 1):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            return t, bool(terminated)
    raise CheckFailedError(
        f"an episode was not truncated at its time limit of {limit} steps",
        f"env = gymnasium.wrappers.TimeLimit(env, {limit})",
    )


def _check_observation(env: gymnasium.Env, observation: Any, where: str) -> None:
    space = env.observation_space
    if not finite(observation):
        raise CheckFailedError(
            f"the observation of {where} must be finite, got {observation!r}",
            "observation = np.nan_to_num(observation)  # or mend what makes it NaN",
        )
    if space.contains(observation):
        return
    if isinstance(space, gymnasium.spaces.Box) and np.shape(observation) == space.shape:
        fix = f"self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, {space.shape}, np.float32)"
        raise CheckFailedError(
            f"the observation of {where} is out of bounds of {space}, got {observation}", fix
        )
    shape = np.shape(observation) if unflat_part(space) is None else "..."
    raise CheckFailedError(
        f"the observation of {where} is not in {space}, got {observation!r}",
        f"self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, {shape}, np.float32)",
    )


def _fix_of_contract(error: ContractError, line: str) -> str:
    if "observation part" in str(error) or "observation must" in str(error):
        return "return observation  # with the parts, shapes and order of self.observation_space"
    if "an image must" in str(error):
        return "return np.asarray(image, np.uint8)  # from 0 to 255, of the shape of self.observation_space"
    return line


def _names_costs(error: Exception) -> bool:
    """Tell whether the error is about the names of costs that were asked for, which the next check says."""
    return isinstance(error, ValueError) and str(error).startswith("costs")


def _line(reward: str = "reward", ends: str = "terminated, truncated") -> str:
    return f"return observation, {reward}, {ends}, info"


def _debug(method: str) -> str:
    return f"breakpoint()  # at the line named here, in {method}"
