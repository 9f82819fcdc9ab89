"""Experiments: deciding what a run is, running it, and using the policies that it saved."""

import fsrl_ext.gymnasium_import  # before anything else imports gymnasium

# isort: split
import fsrl_ext.experiment.algorithms  # noqa: F401 - registers the built-in algorithms
from fsrl_ext.experiment.algorithms.actors import build_actor
from fsrl_ext.experiment.config import ExperimentConfig
from fsrl_ext.experiment.registry import Algorithm, register_algorithm
from fsrl_ext.experiment.saved.adapt import Adaptation, AdaptationPoint, adapt
from fsrl_ext.experiment.saved.certify import Certificate, certify
from fsrl_ext.experiment.saved.evaluate import TeamEvaluation, evaluate
from fsrl_ext.experiment.saved.export import ExportedPolicy, export_policy
from fsrl_ext.experiment.saved.film import record_video, show
from fsrl_ext.experiment.saved.load import load_policy
from fsrl_ext.experiment.saved.suite import SuiteEvaluation, evaluate_suite
from fsrl_ext.experiment.settings import make_config
from fsrl_ext.experiment.sweeps.drive import StudyOutcome, run_plan
from fsrl_ext.experiment.sweeps.plan import PlannedRun, Resources, StudyPlan
from fsrl_ext.experiment.sweeps.study import plan_study
from fsrl_ext.experiment.sweeps.tune import TuningOutcome, sweep
from fsrl_ext.experiment.training.callbacks import RunCallback
from fsrl_ext.experiment.training.run import RunResult, resume, run
from fsrl_ext.experiment.training_config import TrainingConfig

__all__ = [
    "Adaptation",
    "AdaptationPoint",
    "Algorithm",
    "Certificate",
    "ExperimentConfig",
    "ExportedPolicy",
    "PlannedRun",
    "Resources",
    "RunCallback",
    "RunResult",
    "StudyOutcome",
    "StudyPlan",
    "SuiteEvaluation",
    "TeamEvaluation",
    "TrainingConfig",
    "TuningOutcome",
    "adapt",
    "build_actor",
    "certify",
    "evaluate",
    "evaluate_suite",
    "export_policy",
    "load_policy",
    "make_config",
    "plan_study",
    "record_video",
    "register_algorithm",
    "resume",
    "run",
    "run_plan",
    "show",
    "sweep",
]
