"""Safe reinforcement learning algorithms as ``tianshou.policy.BasePolicy`` subclasses."""

from fsrl_ext.policy.cvpo import CVPOConfig, CVPOPolicy

__all__ = ["CVPOConfig", "CVPOPolicy"]
