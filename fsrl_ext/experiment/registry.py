"""The policies that the command line knows: one row each."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tianshou.policy import BasePolicy

from fsrl_ext.experiment.networks import (
    build_cpo,
    build_cvpo,
    build_ddpg,
    build_focops,
    build_meta_cpo,
    build_ppo,
    build_sac,
    build_td3,
    build_trpo,
)
from fsrl_ext.policy import (
    CPOConfig,
    CVPOConfig,
    DDPGLagConfig,
    FOCOPSConfig,
    MetaCPOConfig,
    PPOLagConfig,
    SACLagConfig,
    TD3LagConfig,
    TRPOLagConfig,
)

if TYPE_CHECKING:
    from fsrl_ext.experiment.config import ExperimentConfig
    from fsrl_ext.experiment.task import TaskSpec


Kind = Literal["off_policy", "on_policy", "meta"]


@dataclass(frozen=True)
class PolicyEntry:
    """How a name becomes a policy.

    :param summary: one line for ``fsrl-ext list``.
    :param config: class of the policy's own settings.
    :param build: makes the policy with fresh networks.
    :param constrained: whether there is a cost limit.
    :param unused: settings that mean nothing for this policy; they are not listed and cannot be set.
    :param kind: which trainer it has; on-policy ones learn from the newest data alone, all of it at once,
        meta-learners from the tasks of a family.
    """

    summary: str
    config: type[Any]
    build: Callable[[ExperimentConfig, TaskSpec], BasePolicy]
    constrained: bool = True
    unused: frozenset[str] = frozenset()
    kind: Kind = "off_policy"


_CONSTRAINT = frozenset(
    {
        "cost_limit_start",
        "cost_limit_decay_steps",
        "multiplier_method",
        "multiplier_source",
        "multiplier_gains",
        "multiplier_smoothing",
        "multiplier_surplus_max",
        "multiplier_lr",
        "multiplier_init",
        "multiplier_max",
        "rescale",
        "threshold",
        "augmented_penalty",
        "cost_margin",
    }
)
_OFF_POLICY = frozenset({"repeat_per_collect", "critic_optimiser"})
_GAUSSIAN = _OFF_POLICY | {"covariance", "initial_std"}
_DIAGONAL = _OFF_POLICY | {"covariance"}
_ON_POLICY = frozenset(
    {
        "covariance",
        "reward_ensemble",
        "cost_ensemble",
        "buffer_size",
        "collect_ahead",
        "update_per_step",
        "warmup_steps",
    }
)
_TRUST_REGION = _ON_POLICY | {"actor_lr"}
_META = _TRUST_REGION | {"batch_size", "repeat_per_collect"}
_OWN_CONSTRAINT = _CONSTRAINT - {"cost_limit_start", "cost_limit_decay_steps", "cost_margin"}


POLICIES: dict[str, PolicyEntry] = {
    "cvpo": PolicyEntry(
        "Constrained Variational Policy Optimization (Liu et al., ICML 2022), off-policy",
        CVPOConfig,
        build_cvpo,
        unused=_OFF_POLICY,
    ),
    "sac_lag": PolicyEntry(
        "Soft Actor-Critic with Lagrange multipliers, and CAL (--preset cal), off-policy",
        SACLagConfig,
        build_sac,
        unused=_DIAGONAL,
    ),
    "ddpg_lag": PolicyEntry(
        "DDPG with Lagrange multipliers, off-policy", DDPGLagConfig, build_ddpg, unused=_GAUSSIAN
    ),
    "td3_lag": PolicyEntry(
        "TD3 with Lagrange multipliers, off-policy", TD3LagConfig, build_td3, unused=_GAUSSIAN
    ),
    "sac": PolicyEntry(
        "Soft Actor-Critic without a constraint; logs costs",
        SACLagConfig,
        build_sac,
        constrained=False,
        unused=_DIAGONAL | _CONSTRAINT,
    ),
    "ddpg": PolicyEntry(
        "DDPG without a constraint; logs costs",
        DDPGLagConfig,
        build_ddpg,
        constrained=False,
        unused=_GAUSSIAN | _CONSTRAINT,
    ),
    "td3": PolicyEntry(
        "TD3 without a constraint; logs costs",
        TD3LagConfig,
        build_td3,
        constrained=False,
        unused=_GAUSSIAN | _CONSTRAINT,
    ),
    "cpo": PolicyEntry(
        "Constrained Policy Optimization (Achiam et al., ICML 2017), on-policy",
        CPOConfig,
        build_cpo,
        unused=_TRUST_REGION,
        kind="on_policy",
    ),
    "trpo_lag": PolicyEntry(
        "TRPO with Lagrange multipliers, on-policy",
        TRPOLagConfig,
        build_trpo,
        unused=_TRUST_REGION,
        kind="on_policy",
    ),
    "ppo_lag": PolicyEntry(
        "PPO with Lagrange multipliers, on-policy",
        PPOLagConfig,
        build_ppo,
        unused=_ON_POLICY,
        kind="on_policy",
    ),
    "focops": PolicyEntry(
        "First Order Constrained Optimization in Policy Space (Zhang et al., NeurIPS 2020), on-policy",
        FOCOPSConfig,
        build_focops,
        unused=_ON_POLICY,
        kind="on_policy",
    ),
    "trpo": PolicyEntry(
        "TRPO without a constraint; logs costs",
        TRPOLagConfig,
        build_trpo,
        constrained=False,
        unused=_TRUST_REGION | _CONSTRAINT,
        kind="on_policy",
    ),
    "ppo": PolicyEntry(
        "PPO without a constraint; logs costs",
        PPOLagConfig,
        build_ppo,
        constrained=False,
        unused=_ON_POLICY | _CONSTRAINT,
        kind="on_policy",
    ),
    "meta_cpo": PolicyEntry(
        "Meta-CPO (Cho and Sun, AAAI 2024): learns to adapt to the tasks of a family within their limits",
        MetaCPOConfig,
        build_meta_cpo,
        unused=_META | _OWN_CONSTRAINT,
        kind="meta",
    ),
    "maml_lag": PolicyEntry(
        "MAML with TRPO's steps and Lagrange multipliers",
        MetaCPOConfig,
        build_meta_cpo,
        unused=_META,
        kind="meta",
    ),
    "maml_trpo": PolicyEntry(
        "MAML with TRPO's steps (Finn et al., ICML 2017) without a constraint; logs costs",
        MetaCPOConfig,
        build_meta_cpo,
        constrained=False,
        unused=_META | _CONSTRAINT,
        kind="meta",
    ),
    "multitask_cpo": PolicyEntry(
        "CPO for all tasks of a family at once, without adaptation; fsrl-ext adapt fine-tunes it",
        MetaCPOConfig,
        build_meta_cpo,
        unused=_META | _OWN_CONSTRAINT,
        kind="meta",
    ),
}


# The constrained counterpart of a policy without a constraint, where its name is not the obvious one.
CONSTRAINED = {"maml_trpo": "meta_cpo"}


def policy_entry(name: str) -> PolicyEntry:
    """:raises ValueError: if the name is unknown, suggesting the nearest."""
    if name not in POLICIES:
        near = difflib.get_close_matches(name.lower(), POLICIES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown policy {name!r}; {hint}available: {', '.join(POLICIES)}")
    return POLICIES[name]
