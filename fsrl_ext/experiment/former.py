"""Configs that earlier versions of fsrl_ext wrote.

Version 0.1.0 had one class of training settings, and one config with and without multipliers. Its files
have settings that the algorithm never used and that its classes no longer have. Each had its default, since
another value was refused; a file with another value is refused here, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_GONE = ("cost_calibration",)
"""Settings of learning that no class has any more; a saved policy acts without them."""

# By name the values that a setting without a field may have had.
_UNUSED: dict[str, tuple[Any, ...]] = {
    # Training settings of other families.
    "actor_lr": (5e-4,),
    "batch_size": (128,),
    "buffer_size": (200_000,),
    "collect_ahead": (False,),
    "cost_ensemble": (1,),
    "covariance": ("diagonal",),
    "critic_optimiser": ("adam",),
    "initial_std": (0.8,),
    "repeat_per_collect": (10,),
    "reward_ensemble": (1,),
    "update_per_step": (0.4,),
    "warmup_steps": (0,),
    # Multipliers and limits of an algorithm without them; off-policy and on-policy defaults differ.
    "augmented_penalty": (0.0,),
    "limit_gradient": ("score",),
    "outer_constraint": ("mean",),
    "cost_margin": (0.0,),
    "multiplier_gains": ([0.02, 0.01, 0.0], [0.05, 0.005, 0.05]),
    "multiplier_init": (0.0,),
    "multiplier_lr": (0.01,),
    "multiplier_max": (100.0,),
    "multiplier_method": ("pid",),
    "multiplier_smoothing": (0.0,),
    "multiplier_source": ("episodes",),
    "multiplier_surplus_max": (math.inf, 10.0),
    "rescale": (True,),
    "threshold": ("paper",),
}

_BEFORE: dict[str, Any] = {
    "normalise_signals": False,
    "normalise_observations": False,
    "bound_targets": False,
    "cost_level": "critic",
    "cost_margin": 0.0,
    "margin_rate": 0.0,
    "deterministic_eval": True,
}
"""Settings that older files lack, with the values that stand for what their versions did."""


_FORMER_WORKER_TYPES = ("shmem", "subproc")


def _with_env_processes(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """Training settings in which ``workers`` is a number of processes.

    It was a number of environments in place of ``num_envs`` before, each of which had a process to itself,
    and ``worker_type`` had one name more. 0 meant what it means now, and with ``ray`` the same.
    """
    workers, kind = saved.get("workers"), saved.get("worker_type")
    if kind in _FORMER_WORKER_TYPES:
        return {**saved, **({"num_envs": workers} if workers else {}), "worker_type": "process"}
    return {**saved, "worker_type": "process"} if kind == "ray" and workers == 0 else saved


def from_saved(cls: type[T], saved: Mapping[str, Any]) -> T:
    """An instance of a config class from the fields that were saved.

    :param cls: a dataclass.
    :raises ValueError: for a field of another type, or one that the class does not have, unless it had its
        default in 0.1.0.
    """
    names = {x.name for x in dataclasses.fields(cls)}  # type: ignore[arg-type]
    saved = _with_env_processes(saved)
    for name, value in saved.items():
        if name in names or name in _GONE:
            continue
        unused = _UNUSED.get(name, ())
        if name == "constraint":  # of meta-learners; the algorithm's name says it now
            unused = ("multiplier" if "multiplier_method" in names else "step",)
        if not unused:
            raise ValueError(f"{cls.__name__} has no setting {name}, got {value!r}")
        if value not in unused:
            allowed = " or ".join(map(repr, unused))
            raise ValueError(
                f"{name} must be {allowed} for {cls.__name__}, which has no such setting, got {value!r}"
            )
    before = {name: value for name, value in _BEFORE.items() if name in names}
    return cls(**{**before, **{name: value for name, value in saved.items() if name in names}})
