"""Safe reinforcement learning algorithms as ``tianshou.policy.BasePolicy`` subclasses."""

from fsrl_ext.policy.meta_config import MetaCPOConfig
from fsrl_ext.policy.meta_cpo import MetaCPOPolicy
from fsrl_ext.policy.offpolicy.cvpo import CVPOPolicy
from fsrl_ext.policy.offpolicy.cvpo_config import CVPOConfig
from fsrl_ext.policy.offpolicy.ddpg_lag import DDPGLagConfig, DDPGLagPolicy
from fsrl_ext.policy.offpolicy.sac_lag import SACLagConfig, SACLagPolicy
from fsrl_ext.policy.offpolicy.td3_lag import TD3LagConfig, TD3LagPolicy
from fsrl_ext.policy.onpolicy.cpo import CPOConfig, CPOPolicy
from fsrl_ext.policy.onpolicy.focops import FOCOPSConfig, FOCOPSPolicy
from fsrl_ext.policy.onpolicy.ppo_lag import PPOLagConfig, PPOLagPolicy
from fsrl_ext.policy.onpolicy.trpo_lag import TRPOLagConfig, TRPOLagPolicy

__all__ = [
    "CPOConfig",
    "CPOPolicy",
    "CVPOConfig",
    "CVPOPolicy",
    "DDPGLagConfig",
    "DDPGLagPolicy",
    "FOCOPSConfig",
    "FOCOPSPolicy",
    "MetaCPOConfig",
    "MetaCPOPolicy",
    "PPOLagConfig",
    "PPOLagPolicy",
    "SACLagConfig",
    "SACLagPolicy",
    "TD3LagConfig",
    "TD3LagPolicy",
    "TRPOLagConfig",
    "TRPOLagPolicy",
]
