"""Whether the settings in a file fit its weights, before networks are made of these settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from fsrl_ext.report.structure import short

if TYPE_CHECKING:
    from fsrl_ext.experiment.config import ExperimentConfig
    from fsrl_ext.experiment.task import TaskSpec

_ROOM = 100
"""How many times as many weights as the file has, the settings may seem to ask for.

Networks of other packages may read the settings in another way; the check is about absurd sizes alone.
"""
_MOST = {"threads": 1024, "num_envs": 10_000, "workers": 10_000}


def check_sizes(config: ExperimentConfig, state: Mapping[str, Any]) -> None:
    """Checks the sizes of the networks, the numbers of threads, environments and processes, and the device.

    :param state: of the policy that was saved with the settings.
    :raises ValueError: naming the setting and the value.
    """
    try:
        torch.device(config.device)
    except RuntimeError:
        raise ValueError(f"device must be the name of a device, got {short(config.device)}") from None
    most, training = _ROOM * _weights(state), config.training
    for name, value in (
        ("threads", config.threads),
        ("num_envs", training.num_envs),
        ("workers", 0 if training.workers == "auto" else training.workers),
    ):
        if value > _MOST[name]:
            raise ValueError(f"{name} must be at most {_MOST[name]} in a file, got {value}")
    for name in ("hidden_sizes", "critic_hidden_sizes", "reward_ensemble", "cost_ensemble", "gru_size"):
        widths: Any = getattr(training, name, None)
        sizes = widths if isinstance(widths, tuple) else (widths or 0,)
        products = [a * b for a, b in pairwise(sizes)]
        if max((*sizes, *products, len(sizes)), default=0) > most:
            raise ValueError(f"{name} asks for far larger networks than the file holds, got {widths}")


def check_spec(spec: TaskSpec, state: Mapping[str, Any]) -> None:
    """Checks the sizes of observations and actions.

    :raises ValueError: naming the part.
    """
    if spec.num_actions is not None:
        if spec.action_low or spec.action_high or spec.action_dtype != "int64":
            raise ValueError("spec.action_low and spec.action_high must be empty with spec.num_actions")
    elif not spec.action_low or len(spec.action_low) != len(spec.action_high):
        raise ValueError("spec.action_low and spec.action_high must be of one length, at least 1")
    if any(low > high for low, high in zip(spec.action_low, spec.action_high, strict=True)):
        raise ValueError("spec.action_low must be at most spec.action_high")
    image = spec.image_shape
    if image is not None and (len(image) != 3 or math.prod(image) != spec.obs_dim):
        raise ValueError("spec.image_shape must have three numbers, whose product is spec.obs_dim")
    team = spec.team
    if team is not None:
        if not len(team.names) == len(team.obs_dims) == len(team.act_dims):
            raise ValueError("spec.team must have an entry for each agent in names, obs_dims and act_dims")
        if (sum(team.obs_dims) + len(team.names), sum(team.act_dims)) != (spec.obs_dim, spec.act_dim):
            raise ValueError("spec.team must divide the observations and the actions of the spec")
    if max(spec.obs_dim, spec.act_dim) > _ROOM * _weights(state):
        raise ValueError("spec asks for far larger networks than the file holds")


def _weights(state: Mapping[str, Any]) -> int:
    return 1000 + sum(x.numel() for x in state.values() if isinstance(x, torch.Tensor))
