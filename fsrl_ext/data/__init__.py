"""Buffers, collectors and statistics for experience with costs."""

import fsrl_ext.gymnasium_import  # noqa: F401 - before anything else imports gymnasium
from fsrl_ext.data.ahead import AheadCollector
from fsrl_ext.data.buffer import CostReplayBuffer
from fsrl_ext.data.collector import CostCollector
from fsrl_ext.data.episodes import EpisodeLog
from fsrl_ext.data.errors import NonFiniteStepError, ProcessEndedError
from fsrl_ext.data.meta_collector import MetaCollector
from fsrl_ext.data.nstep import NStepWindow
from fsrl_ext.data.ray_collector import RayCollector
from fsrl_ext.data.stats import CostCollectStats
from fsrl_ext.data.tianshou_buffers import CachedCostBuffer, HERCostBuffer, PrioritizedCostBuffer, WithCosts
from fsrl_ext.data.vector_buffer import CostVectorReplayBuffer

__all__ = [
    "AheadCollector",
    "CachedCostBuffer",
    "CostCollectStats",
    "CostCollector",
    "CostReplayBuffer",
    "CostVectorReplayBuffer",
    "EpisodeLog",
    "HERCostBuffer",
    "MetaCollector",
    "NStepWindow",
    "NonFiniteStepError",
    "PrioritizedCostBuffer",
    "ProcessEndedError",
    "RayCollector",
    "WithCosts",
]
