"""The policies that the command line knows: one row each."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from tianshou.policy import BasePolicy

from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.networks import build_cvpo
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.policy import CVPOConfig


@dataclass(frozen=True)
class PolicyEntry:
    """How a name becomes a policy."""

    summary: str
    config: type
    build: Callable[[ExperimentConfig, TaskSpec], BasePolicy]


POLICIES: dict[str, PolicyEntry] = {
    "cvpo": PolicyEntry(
        "Constrained Variational Policy Optimization (Liu et al., ICML 2022), off-policy",
        CVPOConfig,
        build_cvpo,
    ),
}


def policy_entry(name: str) -> PolicyEntry:
    """:raises ValueError: if the name is unknown, suggesting the nearest."""
    if name not in POLICIES:
        near = difflib.get_close_matches(name.lower(), POLICIES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown policy {name!r}; {hint}available: {', '.join(POLICIES)}")
    return POLICIES[name]
