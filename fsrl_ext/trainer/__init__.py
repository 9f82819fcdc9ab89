"""Trainers on Tianshou's loop, evaluation, selection of the best feasible policy, and the seeds of runs."""

import fsrl_ext.gymnasium_import  # noqa: F401 - before anything else imports gymnasium
from fsrl_ext.trainer.evaluation import evaluate_policy
from fsrl_ext.trainer.meta import MetaTrainer
from fsrl_ext.trainer.offpolicy import CostOffpolicyTrainer
from fsrl_ext.trainer.onpolicy import CostOnpolicyTrainer
from fsrl_ext.trainer.seeds import (
    adaptation_seeds,
    collecting_process_seed,
    meta_iteration_seeds,
    seed_range,
)
from fsrl_ext.trainer.selection import Evaluation

__all__ = [
    "CostOffpolicyTrainer",
    "CostOnpolicyTrainer",
    "Evaluation",
    "MetaTrainer",
    "adaptation_seeds",
    "collecting_process_seed",
    "evaluate_policy",
    "meta_iteration_seeds",
    "seed_range",
]
