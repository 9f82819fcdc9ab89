"""Safe reinforcement learning algorithms as ``tianshou.policy.BasePolicy`` subclasses."""

import fsrl_ext.gymnasium_import  # noqa: F401 - before anything else imports gymnasium
from fsrl_ext.policy.acting import EpisodeActor
from fsrl_ext.policy.base import ConstrainedPolicy, PolicyConfig
from fsrl_ext.policy.meta_config import MAMLConfig, MAMLLagConfig, MetaCPOConfig
from fsrl_ext.policy.meta_cpo import MetaCPOPolicy
from fsrl_ext.policy.offpolicy.cvpo import CVPOPolicy
from fsrl_ext.policy.offpolicy.cvpo_config import CVPOConfig
from fsrl_ext.policy.offpolicy.ddpg_lag import DDPGConfig, DDPGLagConfig, DDPGLagPolicy
from fsrl_ext.policy.offpolicy.sac_lag import SACConfig, SACLagConfig, SACLagPolicy
from fsrl_ext.policy.offpolicy.td3_lag import TD3Config, TD3LagConfig, TD3LagPolicy
from fsrl_ext.policy.onpolicy.cpo import CPOConfig, CPOPolicy
from fsrl_ext.policy.onpolicy.focops import FOCOPSConfig, FOCOPSPolicy
from fsrl_ext.policy.onpolicy.ppo_lag import PPOConfig, PPOLagConfig, PPOLagPolicy
from fsrl_ext.policy.onpolicy.trpo_lag import TRPOConfig, TRPOLagConfig, TRPOLagPolicy

__all__ = [
    "CPOConfig",
    "CPOPolicy",
    "CVPOConfig",
    "CVPOPolicy",
    "ConstrainedPolicy",
    "DDPGConfig",
    "DDPGLagConfig",
    "DDPGLagPolicy",
    "EpisodeActor",
    "FOCOPSConfig",
    "FOCOPSPolicy",
    "MAMLConfig",
    "MAMLLagConfig",
    "MetaCPOConfig",
    "MetaCPOPolicy",
    "PPOConfig",
    "PPOLagConfig",
    "PPOLagPolicy",
    "PolicyConfig",
    "SACConfig",
    "SACLagConfig",
    "SACLagPolicy",
    "TD3Config",
    "TD3LagConfig",
    "TD3LagPolicy",
    "TRPOConfig",
    "TRPOLagConfig",
    "TRPOLagPolicy",
]
