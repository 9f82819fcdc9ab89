"""Config classes that ``fsrl_ext.policy`` does not export yet. This file goes when it does."""

from __future__ import annotations

from dataclasses import dataclass

from fsrl_ext.policy import (
    DDPGLagConfig,
    MetaCPOConfig,
    PPOLagConfig,
    SACLagConfig,
    TD3LagConfig,
    TRPOLagConfig,
)
from fsrl_ext.policy.meta_config import ConstraintKind

SACConfig = SACLagConfig
DDPGConfig = DDPGLagConfig
TD3Config = TD3LagConfig
TRPOConfig = TRPOLagConfig
PPOConfig = PPOLagConfig
MAMLConfig = MetaCPOConfig


@dataclass(frozen=True, kw_only=True)
class MAMLLagConfig(MetaCPOConfig):
    """Settings of MAML with multipliers."""

    constraint: ConstraintKind = "multiplier"
    """Limits bind in every constrained step (CPO), or a multiplier prices costs (Lagrangian)."""
