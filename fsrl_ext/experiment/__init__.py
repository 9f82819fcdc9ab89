"""Experiments: configs, runs, checkpoints."""

from fsrl_ext.experiment.config import ExperimentConfig, TrainingConfig
from fsrl_ext.experiment.saved.adapt import Adaptation, AdaptationPoint, adapt
from fsrl_ext.experiment.saved.evaluate import evaluate
from fsrl_ext.experiment.saved.film import record_video, show
from fsrl_ext.experiment.saved.suite import SuiteEvaluation, evaluate_suite
from fsrl_ext.experiment.settings import make_config
from fsrl_ext.experiment.training.checkpoint import load_policy
from fsrl_ext.experiment.training.run import RunResult, resume, run

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
