"""Experiments: configs, runs, checkpoints."""

from fsrl_ext.experiment.checkpoint import load_policy
from fsrl_ext.experiment.config import ExperimentConfig, TrainingConfig
from fsrl_ext.experiment.run import RunResult, run
from fsrl_ext.experiment.settings import make_config

__all__ = [
    "ExperimentConfig",
    "RunResult",
    "TrainingConfig",
    "load_policy",
    "make_config",
    "run",
]
