"""What the policies share: checks, n-step targets from a buffer, Polyak averages, statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import ReplayBuffer, ReplayBufferManager
from tianshou.policy.base import TrainingStats
from torch import Tensor, nn

from fsrl_ext.errors import NonFiniteError
from fsrl_ext.functional.returns import nstep_targets


def check_fields(
    config: object,
    *,
    positive: Sequence[str] = (),
    non_negative: Sequence[str] = (),
    unit_interval: Sequence[str] = (),
    at_least_one: Sequence[str] = (),
    choices: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Checks a config's fields by name.

    :raises ValueError: naming the field, its value and what is allowed.
    """
    rules: list[tuple[Sequence[str], str, Callable[[Any], bool]]] = [
        (positive, "> 0", lambda x: x > 0 and math.isfinite(x)),
        (non_negative, ">= 0", lambda x: x >= 0),
        (unit_interval, "in (0, 1]", lambda x: 0 < x <= 1),
        (at_least_one, "a whole number >= 1", lambda x: x >= 1 and x == int(x)),
    ]
    for names, allowed, is_allowed in rules:
        for name in names:
            value = getattr(config, name)
            if not is_allowed(value):
                raise ValueError(f"{name} must be {allowed}, got {value}")
    for name, values in (choices or {}).items():
        value = getattr(config, name)
        if value not in values:
            raise ValueError(f"{name} must be one of {tuple(values)}, got {value!r}")


def check_normalised_box(action_space: gym.Space, policy: str) -> None:
    """Refuses action spaces that cannot be scaled to ``[-1, 1]``.

    :raises ValueError: naming the space.
    """
    if not isinstance(action_space, gym.spaces.Box):
        raise ValueError(f"{policy} needs a continuous (Box) action space, got {action_space}")
    if not action_space.is_bounded():
        raise ValueError(f"{policy} needs a bounded action space, got {action_space}")


def check_finite(loss: Tensor, name: str) -> None:
    """:raises NonFiniteError: if a loss is NaN or infinite, before any optimiser uses it."""
    if not torch.isfinite(loss):
        raise NonFiniteError(f"{name} is {loss.item()}; the parameters were left as they were")


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Moves the target's parameters by ``tau`` towards the source's."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


@torch.no_grad()
def nstep_returns(
    buffer: ReplayBuffer,
    indices: np.ndarray,
    next_state_values: Callable[[Tensor], Tensor],
    *,
    gamma: float,
    num_steps: int,
    device: torch.device,
) -> Tensor:
    """n-step targets ``[B, S]`` of reward and all costs for transitions of a cost-aware buffer.

    Windows end at the end of an episode and at the newest stored step; a terminal state stops
    bootstrapping for reward and costs alike, a time limit does not.

    :param indices: ``[B]`` places in the buffer.
    :param next_state_values: observations ``[B, O]`` to values ``[B, S]``.
    """
    window = [np.asarray(indices)]
    alive = [np.ones(len(indices), dtype=bool)]
    for _ in range(num_steps - 1):
        following = buffer.next(window[-1])
        # next() stays where it is at the end of an episode and of the data.
        alive.append(alive[-1] & (following != window[-1]))
        window.append(following)
    stacked, last = np.stack(window), window[-1]
    rewards = buffer.rew[stacked].astype(np.float32)[..., None]
    signals = np.concatenate([rewards, buffer.cost[stacked]], axis=-1)
    next_obs = torch.as_tensor(buffer.obs_next[last], dtype=torch.float32, device=device)
    return nstep_targets(
        torch.as_tensor(signals, device=device),
        torch.as_tensor(np.stack(alive), device=device),
        torch.as_tensor(buffer.terminated[last], device=device),
        next_state_values(next_obs),
        gamma,
    )


def recent_step_cost(buffer: ReplayBuffer, window: int) -> np.ndarray:
    """Mean cost of a step ``[C]`` over the newest ``window`` stored steps of each environment."""
    parts = buffer.buffers if isinstance(buffer, ReplayBufferManager) else [buffer]
    recent = [
        start + (part.last_index[0] - np.arange(min(window, len(part)))) % part.maxsize
        for start, part in zip(buffer.subbuffer_edges[:-1], parts, strict=True)
    ]
    return buffer.cost[np.concatenate(recent)].mean(axis=0)


@dataclass(kw_only=True)
class MetricStats(TrainingStats):
    """Training statistics as one flat mapping from name to number."""

    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_tensors(cls, metrics: Mapping[str, Tensor | float]) -> MetricStats:
        """Reads all tensors back at once, so that a device is waited for a single time."""
        tensors = {k: v.detach().double() for k, v in metrics.items() if isinstance(v, Tensor)}
        values = torch.stack(list(tensors.values())).tolist() if tensors else []
        numbers = {k: float(v) for k, v in metrics.items() if not isinstance(v, Tensor)}
        return cls(metrics=numbers | dict(zip(tensors, values, strict=True)))

    def get_loss_stats_dict(self) -> dict[str, float]:
        """What Tianshou's trainers average and log."""
        return dict(self.metrics)
