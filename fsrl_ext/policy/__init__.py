"""Safe reinforcement learning algorithms as ``tianshou.policy.BasePolicy`` subclasses."""

from fsrl_ext.policy.cvpo import CVPOPolicy
from fsrl_ext.policy.cvpo_config import CVPOConfig

__all__ = ["CVPOConfig", "CVPOPolicy"]
