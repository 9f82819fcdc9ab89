"""Settings of CVPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.returns import ThresholdUnit
from fsrl_ext.policy.offpolicy.critics import OffpolicyConfig


@dataclass(frozen=True, kw_only=True)
class CVPOConfig(OffpolicyConfig):
    """Settings of :class:`~fsrl_ext.policy.CVPOPolicy`; ``docs/algorithms/cvpo.md`` explains the defaults."""

    kl_bound: float = 0.05
    """E-step: bound on the mean KL divergence between the reweighted and the old policy, in nats."""
    num_samples: int = 16
    """E-step: actions sampled for each state."""
    threshold: ThresholdUnit = "paper"
    """How the cost limit becomes a discounted threshold: see ``functional.returns.cost_threshold``."""
    solver: Literal["exact", "slsqp"] = "exact"
    """E-step: solved exactly, or loosely by SciPy as in the authors' code."""
    estep_precision: Literal["float32", "bfloat16"] = "float32"
    """E-step: type of the products between the critics' hidden layers; ``bfloat16`` is faster where the
    processor has it (``benchmarks/gradient_step.py``) and needs an ``EnsembleCritic``."""
    cost_margin: float = 0.0
    """E-step: share of the limit by which the threshold stays below it, in [0, 1). A policy whose *mean* cost
    is at the limit exceeds it in about every other episode."""
    cost_level_rate: float = 0.1
    """E-step: rate of the running mean of Q_c that the constraint is about, per gradient step, in (0, 1].
    With 1 each batch's own states have to meet it (the paper)."""
    cost_calibration: float = 0.0
    """E-step: how far, for each collect cycle, the threshold follows the measured bias of the cost critics; 0
    trusts the critics (the paper), 1 the last episodes alone."""
    multiplier_max: float | None = None
    """E-step: cap of the cost multipliers, for an elastic constraint; ``None`` for an exact one."""
    kl_bound_mean: float = 0.01
    """M-step: bound on the KL divergence that the mean's change causes."""
    kl_bound_scale: float = 1e-3
    """M-step: bound on the KL divergence that the covariance's change causes."""
    kl_multiplier_lr: float = 0.01
    """M-step: ascent rate of the KL multipliers, per relative violation of their bound."""
    kl_multiplier_max: float = 10.0
    """M-step: largest KL multiplier."""
    mstep_iterations: int = 1
    """M-step: optimiser steps for each E-step."""
    max_grad_norm: float = 40.0
    """M-step: the actor's gradient is clipped to this norm."""
    old_policy: Literal["frozen", "polyak"] = "frozen"
    """What actions are sampled from: a copy frozen for each collect cycle, or a moving average."""
    old_policy_tau: float = 0.005
    """Rate of the moving average, in (0, 1]; unused with a frozen copy."""
    deterministic_eval: bool = True
    """Act with the mean outside training steps."""
    average_tau: float | None = None
    """Act outside training steps with a moving average of the actor's parameters; its rate per gradient step,
    in (0, 1]. ``None`` acts with the newest actor. Training is the same either way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("kl_bound", "kl_bound_mean", "kl_bound_scale", "max_grad_norm"),
            non_negative=("kl_multiplier_lr", "kl_multiplier_max"),
            unit_interval=("old_policy_tau", "cost_level_rate"),
            at_least_one=("num_samples", "mstep_iterations"),
            below_one=("cost_margin",),
            choices={
                "threshold": get_args(ThresholdUnit),
                "solver": ("exact", "slsqp"),
                "estep_precision": ("float32", "bfloat16"),
                "old_policy": ("frozen", "polyak"),
            },
        )
        if not 0.0 <= self.cost_calibration <= 1.0:
            raise ValueError(f"cost_calibration must be in [0, 1], got {self.cost_calibration}")
        if self.average_tau is not None and not 0.0 < self.average_tau <= 1.0:
            raise ValueError(f"average_tau must be None or in (0, 1], got {self.average_tau}")
        if self.multiplier_max is not None and not self.multiplier_max >= 0:
            raise ValueError(f"multiplier_max must be None or >= 0, got {self.multiplier_max}")
        if self.multiplier_max is not None and self.solver == "slsqp":
            raise ValueError(f"multiplier_max must be None with solver='slsqp', got {self.multiplier_max}")

    @property
    def uses_threshold(self) -> bool:
        """Whether the discounted threshold, which takes episodes to be full length, decides anything."""
        return True
