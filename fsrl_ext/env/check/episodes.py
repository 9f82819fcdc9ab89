"""Record steps of an environment, so that those of two environments can be compared bit for bit."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np


class Row(NamedTuple):
    """What an environment returned from a reset or a step."""

    where: str
    values: dict[str, Any]
    """Observation and, for a step, reward, cost and the two ends."""
    info: dict[str, Any]


def rows(env: gymnasium.Env, seed: int, steps: int) -> Iterator[Row]:
    """Seed an environment, and yield what it returns from then on.

    Actions are drawn from a copy of the action space with the same seed. Later resets have no seed: one after
    each episode, and one after half of the steps.
    """
    actions = copy.deepcopy(env.action_space)
    actions.seed(seed)
    observation, info = env.reset(seed=seed)
    yield Row("the reset with a seed", {"observation": copy.deepcopy(observation)}, info)
    for t in range(1, steps + 1):
        observation, reward, terminated, truncated, info = env.step(actions.sample())
        values = {
            "observation": copy.deepcopy(observation),
            "reward": float(reward),
            "cost": copy.deepcopy(info["cost"]),
            "terminated": bool(terminated),
            "truncated": bool(truncated),
        }
        yield Row(f"step {t}", values, info)
        if terminated or truncated or t == steps // 2:
            observation, info = env.reset()
            yield Row(f"the reset after step {t}", {"observation": copy.deepcopy(observation)}, info)


def difference(one: Sequence[Row], other: Sequence[Row]) -> str | None:
    """Describe the first difference of two records; None if they are equal bit for bit."""
    for a, b in zip(one, other, strict=False):
        if a.where != b.where:
            return f"{a.where} came where {b.where} came before"
        for name, value in a.values.items():
            if not _same(value, b.values[name]):
                return f"the {name} of {a.where} was {_short(value)} and then {_short(b.values[name])}"
    if len(one) != len(other):
        return f"the episodes have {len(one)} and {len(other)} resets and steps"
    return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    a, b = np.asarray(one), np.asarray(other)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
