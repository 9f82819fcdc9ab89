"""Experiments: configs, runs, checkpoints."""

from fsrl_ext.experiment.adapt import Adaptation, AdaptationPoint, adapt
from fsrl_ext.experiment.checkpoint import load_policy
from fsrl_ext.experiment.config import ExperimentConfig, TrainingConfig
from fsrl_ext.experiment.evaluate import evaluate
from fsrl_ext.experiment.film import record_video, show
from fsrl_ext.experiment.run import RunResult, resume, run
from fsrl_ext.experiment.settings import make_config
from fsrl_ext.experiment.suite import SuiteEvaluation, evaluate_suite

__all__ = [
    "Adaptation",
    "AdaptationPoint",
    "ExperimentConfig",
    "RunResult",
    "SuiteEvaluation",
    "TrainingConfig",
    "adapt",
    "evaluate",
    "evaluate_suite",
    "load_policy",
    "make_config",
    "record_video",
    "resume",
    "run",
    "show",
]
