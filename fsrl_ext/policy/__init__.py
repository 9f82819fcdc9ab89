"""Safe reinforcement learning algorithms as ``tianshou.policy.BasePolicy`` subclasses."""

from fsrl_ext.policy.cvpo import CVPOPolicy
from fsrl_ext.policy.cvpo_config import CVPOConfig
from fsrl_ext.policy.ddpg_lag import DDPGLagConfig, DDPGLagPolicy
from fsrl_ext.policy.sac_lag import SACLagConfig, SACLagPolicy
from fsrl_ext.policy.td3_lag import TD3LagConfig, TD3LagPolicy

__all__ = [
    "CVPOConfig",
    "CVPOPolicy",
    "DDPGLagConfig",
    "DDPGLagPolicy",
    "SACLagConfig",
    "SACLagPolicy",
    "TD3LagConfig",
    "TD3LagPolicy",
]
