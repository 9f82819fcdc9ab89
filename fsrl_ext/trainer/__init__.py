"""Trainers on Tianshou's loop, evaluation on given seeds, selection of the best feasible policy."""

from fsrl_ext.trainer.evaluation import evaluate_policy
from fsrl_ext.trainer.meta import MetaTrainer
from fsrl_ext.trainer.offpolicy import CostOffpolicyTrainer
from fsrl_ext.trainer.onpolicy import CostOnpolicyTrainer
from fsrl_ext.trainer.selection import Evaluation, seed_range

__all__ = [
    "CostOffpolicyTrainer",
    "CostOnpolicyTrainer",
    "Evaluation",
    "MetaTrainer",
    "evaluate_policy",
    "seed_range",
]
