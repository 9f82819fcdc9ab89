"""What a policy's constraint is held by, and what the newest snapshot of its run holds in the buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tianshou.policy import BasePolicy

from fsrl_ext.experiment.training.snapshot import read_snapshot
from fsrl_ext.policy.base import ConstrainedPolicy
from fsrl_ext.report.folder import RunFolder


def constraint_numbers(policy: BasePolicy) -> list[dict[str, Any]]:
    """Return limit, margins, threshold and multiplier of each cost; ``None`` for what a policy lacks.

    Limit, margins and bound are costs of an episode in the unit of the limits; the threshold is in the unit
    of discounted cost critics. CVPO and CPO solve for their multipliers at each update and do not keep them;
    the log has them.
    """
    if not isinstance(policy, ConstrainedPolicy):
        return []
    config: Any = policy.config
    measured = getattr(policy, "measured_cost", None)
    extra = getattr(policy if measured is None else measured, "extra_margin", None)
    multipliers = getattr(policy, "multipliers", None)
    return [
        {
            "limit": limit,
            "margin": config.cost_margin,
            "extra_margin": None if extra is None else float(extra[i]),
            "bound": float(policy.cost_bound[i]) - (0.0 if extra is None else float(extra[i])),
            "threshold": float(policy.cost_threshold[i]),
            "threshold_unit": config.threshold_unit,
            "uses_threshold": config.uses_threshold,
            "multiplier": None if multipliers is None else float(multipliers.values[i]),
            "multiplier_cap": getattr(config, "multiplier_max", None),
        }
        for i, limit in enumerate(policy.cost_limit)
    ]


def buffer_states(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return states of the replay buffer in a run's snapshot, evenly spaced, and how old they are.

    :param folder: a run folder.
    :param count: number of states, about.
    :return: ``obs [n, O]`` and ``[n]`` ages in [0, 1], 0 for the newest stored step; ``None`` without a
        snapshot, and for a snapshot without data.
    :raises CheckpointError: if the snapshot is damaged.
    """
    path = RunFolder(folder).snapshot
    if not path.is_file():
        return None
    collector = read_snapshot(path)["trainer"]["collector"]
    if collector is None or "obs" not in collector["buffer"]["arrays"]:
        return None
    buffer = collector["buffer"]
    room = buffer["shape"][1]
    parts, ages = [], []
    counters = buffer["counters"]
    for rows, size, last in zip(buffer["arrays"]["obs"], counters["size"], counters["last"], strict=True):
        stride = max(int(size) * len(buffer["arrays"]["obs"]) // count, 1)
        age = np.arange(0, int(size), stride)
        parts.append(rows[(int(last) - age) % room])
        ages.append(age / max(int(size), 1))
    obs = np.concatenate(parts)
    return (obs, np.concatenate(ages)) if len(obs) else None
