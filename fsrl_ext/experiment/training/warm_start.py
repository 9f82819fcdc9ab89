"""Starts a new run from a saved policy."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import torch
from tianshou.policy import BasePolicy

from fsrl_ext.errors import CheckpointError, NoCheckpointError
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.files.state import check_optimiser
from fsrl_ext.experiment.training.checkpoint import optimisers_of, read_checkpoint, restore
from fsrl_ext.report.folder import checkpoint_file
from fsrl_ext.report.structure import short


def start_from(
    policy: BasePolicy, config: ExperimentConfig, init_from: str | os.PathLike[str]
) -> dict[str, Any]:
    """Loads a saved policy's state into a fresh one, and returns where it came from.

    :raises NoCheckpointError: if there is none.
    :raises CheckpointError: if it is unusable or does not fit.
    """
    path = checkpoint_file(init_from)
    if not path.is_file():
        raise NoCheckpointError(f"init_from: no checkpoint at {path}")
    data = read_checkpoint(path)
    origin = data["config"]
    if origin["policy"] != config.policy:
        raise CheckpointError(
            f"init_from {path} does not fit: it holds the policy {origin['policy']!r}, not {config.policy!r}"
        )
    # The new run counts from zero: what the old one had seen of its data stays behind. The units in which the
    # networks see observations, rewards and costs stay with the networks.
    extra = data["policy"].get("_extra_state")
    units = extra.get("units") if isinstance(extra, dict) else None
    data["policy"] = {k: v for k, v in data["policy"].items() if isinstance(v, torch.Tensor)}
    data["policy"]["_extra_state"] = {} if units is None else {"units": units}
    there, here = (
        {k: list(v.shape) for k, v in x.items() if isinstance(v, torch.Tensor)}
        for x in (data["policy"], policy.state_dict())
    )
    there.pop("cost_bias", None)  # CVPO of version 0.1.0 had it
    different = [name for name in here | there if here.get(name) != there.get(name)]
    if different:
        name = different[0]
        sizes = origin["training"].get("hidden_sizes")
        sizes = tuple(sizes) if isinstance(sizes, list) else sizes
        raise CheckpointError(
            f"init_from {path} does not fit: {name} has the shape {there.get(name)} there, {here.get(name)} "
            f"here (trained on {origin['task']}, hidden_sizes {short(sizes)})"
        )
    restore(policy, data, optimisers=False)
    try:
        optimisers = [
            name
            for name, optimiser in optimisers_of(policy).items()
            if _take_moments(optimiser, data["optimisers"].get(name), f"optimisers.{name}")
        ]
    except ValueError as error:
        raise CheckpointError(f"init_from {path} does not fit: {error}") from error
    return {
        "checkpoint": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "task": origin["task"],
        "env_step": data["counters"]["env_step"],
        "optimisers": optimisers,
    }


def _take_moments(optimiser: torch.optim.Optimizer, saved: dict[str, Any] | None, part: str) -> bool:
    """Gives an optimiser the saved moments and keeps its own settings; False if it is of another kind.

    :raises ValueError: if the moments are not those of the policy's parameters.
    """
    own = optimiser.state_dict()
    # The names of the settings tell Adam from SGD; the order of the parameters is the policy's.
    kinds = [[(sorted(g), g.get("params")) for g in x["param_groups"]] for x in (own, saved) if x is not None]
    if len(kinds) < 2 or kinds[0] != kinds[1]:
        return False
    assert saved is not None
    state = {"state": saved["state"], "param_groups": own["param_groups"]}
    check_optimiser(state, optimiser, part)
    optimiser.load_state_dict(state)
    return True
