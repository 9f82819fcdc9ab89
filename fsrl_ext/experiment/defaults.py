"""Defaults that depend on policy and task: tables, read before anything that the user sets.

A policy's row has what differs from its config and from ``TrainingConfig``: batch and updates of the
off-policy baselines are FSRL's published ones, with two critics where the algorithm is about two.

A task's row applies to every task of its suite whose id matches its pattern; later rows win. Discount factors
and n-step lengths are those that FSRL's published CVPO results used, limits those of the published
benchmarks.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from fsrl_ext.env import list_tasks
from fsrl_ext.experiment.registry import Kind

TASK_DEFAULTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("*", "*", {"cost_limit": (10.0,)}),
    ("safety-gymnasium", "*", {"cost_limit": (25.0,), "gamma": 0.99, "estimation_step": 3}),
    ("meta", "*", {"cost_limit": (25.0,), "gamma": 0.99, "estimation_step": 3}),
    ("safety-gymnasium", "*Velocity-v1", {"gamma": 0.98, "estimation_step": 2}),
)

# Whole episodes of the training environments, so that their ends and those of the collects fall together.
_KIND_TASK_DEFAULTS: dict[Kind, tuple[tuple[str, str, dict[str, Any]], ...]] = {
    "off_policy": (),
    "on_policy": (
        ("*", "*", {"step_per_collect": 6_000}),
        ("safety-gymnasium", "*", {"step_per_collect": 20_000}),
    ),
    "meta": (("*", "*", {"step_per_collect": 3_000}),),
}

# Of one policy alone; they win over those for all.
_POLICY_TASK_DEFAULTS: dict[str, tuple[tuple[str, str, dict[str, Any]], ...]] = {
    # Without the margin it settles above the limit there; without the bonus its deviation shrinks before it
    # has found the way round the circle (docs/algorithms/onpolicy.md).
    "cpo": (
        ("bullet-safety-gym", "*", {"cost_margin": 0.2, "entropy_weight": 0.01}),
        ("bullet-safety-gym", "SafetyCarCircle-v0", {"entropy_weight": 0.02}),
    ),
}

_BASELINE: dict[str, Any] = {"batch_size": 256, "update_per_step": 0.2}
_TWIN: dict[str, Any] = {**_BASELINE, "reward_ensemble": 2, "cost_ensemble": 2}

# Without random actions first, a deterministic policy may have settled before it has seen what pays and what
# costs; smoothed over 0.2 of the action box, as in the paper, TD3's critics miss the sharper of two optima
# (docs/algorithms/lagrangian.md).
_DDPG: dict[str, Any] = {**_BASELINE, "warmup_steps": 10_000}
_TD3: dict[str, Any] = {**_TWIN, "warmup_steps": 10_000, "target_std": 0.05}

_ONPOLICY: dict[str, Any] = {
    "hidden_sizes": (64, 64),
    "batch_size": 256,
    "initial_std": 0.6,
}

# Networks, amount of data and critics as in the code published with Meta-CPO.
_META: dict[str, Any] = {
    "hidden_sizes": (24, 12),
    "critic_hidden_sizes": (128, 128),
    "critic_optimiser": "lbfgs",
    "num_envs": 6,
    "initial_std": 0.6,
    "normalise_steps": 360_000,
    "steps": 3_600_000,
}

POLICY_DEFAULTS: dict[str, dict[str, Any]] = {
    # Training episodes then exceed the limit about as rarely as those of others (docs/algorithms/cvpo.md).
    "cvpo": {"cost_margin": 0.5},
    "sac": _TWIN,
    "sac_lag": _TWIN,
    "ddpg": _DDPG,
    "ddpg_lag": _DDPG,
    "td3": _TD3,
    "td3_lag": _TD3,
    "cpo": _ONPOLICY,
    "trpo": _ONPOLICY,
    "trpo_lag": _ONPOLICY,
    "ppo": _ONPOLICY,
    "ppo_lag": _ONPOLICY,
    # Adapted policies cost more than its steps promise (docs/algorithms/meta_cpo.md).
    "meta_cpo": {**_META, "cost_margin": 0.5},
    "maml_trpo": _META,
    "maml_lag": {**_META, "constraint": "multiplier"},
    # A step for every collect, so that it takes more of them, each as long as CPO's.
    "multitask_cpo": {**_META, "inner_steps": 0, "outer_kl_bound": 0.01},
    # Its masked loss takes more and smaller steps to come as far as the bound allows.
    "focops": {**_ONPOLICY, "batch_size": 64},
}


def task_defaults(policy: str, task: str, kind: Kind) -> dict[str, Any]:
    """What the tables say about a task and a policy of this kind; unknown tasks get the rows for all."""
    name = task.rpartition(":")[2]
    suite = next((info.suite for info in list_tasks() if info.id == name), "user")
    settings: dict[str, Any] = {}
    rows = TASK_DEFAULTS + _KIND_TASK_DEFAULTS[kind] + _POLICY_TASK_DEFAULTS.get(policy, ())
    for suite_pattern, pattern, row in rows:
        if fnmatchcase(suite, suite_pattern) and fnmatchcase(name, pattern):
            settings |= row
    return settings
