"""Settings of CVPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fsrl_ext.errors import check_fields
from fsrl_ext.policy.offpolicy.critics import CostLevelConfig


@dataclass(frozen=True, kw_only=True)
class CVPOConfig(CostLevelConfig):
    """Settings of :class:`~fsrl_ext.policy.CVPOPolicy`; ``docs/algorithms/cvpo.md`` explains the defaults.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    kl_bound: float = 0.05
    """E-step: bound on the mean KL divergence of the reweighted policy from the old one, in nats, > 0."""
    num_samples: int = 16
    """E-step: number of actions sampled from the old policy in each state, >= 1."""
    action_sampling: Literal["independent", "stratified"] = "independent"
    """E-step: how these actions are drawn. ``independent`` is the paper's way. ``stratified`` draws a Latin
    hypercube, and the M-step knows the moments that the unweighted samples should have, so that 8 samples
    have less noise than 16 ``independent`` ones (``benchmarks/estep_samples.py``)."""
    solver: Literal["exact", "slsqp"] = "exact"
    """E-step: solver of the dual: an ``exact`` one, or SciPy's SLSQP with loose tolerances (``slsqp``), as in
    the paper authors' code."""
    estep_precision: Literal["float32", "bfloat16", "forced-bfloat16"] = "float32"
    """E-step: number type of the products between the critics' hidden layers. ``bfloat16`` is faster on
    processors that support it (``benchmarks/gradient_step.py``) and needs an ``EnsembleCritic``. A run
    refuses it on other processors, and ``forced-bfloat16`` there computes the same."""
    cost_margin: float = 0.0
    """E-step: share of the cost limit that the threshold keeps free, in [0, 1). A policy whose *mean* cost is
    at the limit exceeds the limit in about every other episode."""
    limit_approach: float = 0.3
    """E-step, with ``cost_level`` ``measured``: share of the distance between measured cost and limit that
    the updates of one collect cycle may use up, in (0, 1]."""
    recovery_share: float = 1.0
    """E-step, with ``cost_level`` ``measured``: largest share, in (0, 1], of the reduction that the KL bound
    allows which an update may be asked for while costs are above the limit. What is left of the KL bound
    raises the reward. With 1 the whole excess is to go at once."""
    margin_rate: float = 0.1
    """E-step, with ``cost_level`` ``measured``: share of the measured excess over the limit by which a cycle
    widens the margin; by the same share of the room below the limit it narrows the margin again, down to
    ``cost_margin``. In [0, 1). With ``recovery_share`` below 1 the margin is a share of the reduction that
    the KL bound allows, and changes by this rate times the excess relative to the limit."""
    cost_level_rate: float = 0.1
    """E-step, with ``cost_level`` ``critic``: weight of the newest batch in the running mean of Q_c that has
    to meet the threshold, in (0, 1]. With 1 the states of every single batch have to meet it (the paper)."""
    multiplier_max: float | None = None
    """E-step: largest cost multiplier, > 0, which makes the constraint elastic; ``None`` for a constraint
    that holds exactly."""
    kl_bound_mean: float = 0.01
    """M-step: bound on the KL divergence that the change of the Gaussian mean causes, in nats, > 0."""
    kl_bound_scale: float = 1e-3
    """M-step: bound on the KL divergence that the change of the covariance causes, in nats, > 0."""
    kl_multiplier_lr: tuple[float, ...] = (0.01, 0.01)
    """M-step: change of the KL multipliers of mean and covariance per iteration and relative violation of
    their bounds, >= 0; one number is for both."""
    kl_multiplier_max: tuple[float, ...] = (10.0, 10.0)
    """M-step: largest values of the KL multipliers of mean and covariance, >= 0; one number is for both."""
    mstep_iterations: int = 1
    """M-step: optimiser steps of the actor after each E-step, >= 1."""
    max_grad_norm: float = 40.0
    """M-step: largest norm of the actor's gradient, > 0; a longer gradient is scaled down to it."""
    old_policy: Literal["frozen", "polyak"] = "frozen"
    """The policy that the E-step samples from: the actor as it was at the last collect (``frozen``), or a
    moving average of the actor's parameters (``polyak``)."""
    old_policy_tau: float = 0.005
    """Weight of the newest actor, per gradient step, in the moving average of ``old_policy`` ``polyak``, in
    (0, 1]."""
    deterministic_eval: bool | None = None
    """Whether the policy acts with its most probable action outside training steps; false for sampled
    actions. ``None``: true for continuous actions, and false for discrete ones, because the best policy
    within a limit may have to mix them."""
    average_tau: float | None = None
    """Weight of the newest actor, per gradient step, in a moving average of actors that acts outside training
    steps, in (0, 1]. ``None`` acts with the newest actor. Training is the same either way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("kl_bound", "kl_bound_mean", "kl_bound_scale", "max_grad_norm", "multiplier_max"),
            non_negative=("kl_multiplier_lr",),
            non_negative_or_inf=("kl_multiplier_max",),
            unit_interval=(
                "old_policy_tau",
                "cost_level_rate",
                "limit_approach",
                "recovery_share",
                "average_tau",
            ),
            at_least_one=("num_samples", "mstep_iterations"),
            below_one=("cost_margin", "margin_rate"),
            choices={
                "solver": ("exact", "slsqp"),
                "action_sampling": ("independent", "stratified"),
                "estep_precision": ("float32", "bfloat16", "forced-bfloat16"),
                "old_policy": ("frozen", "polyak"),
            },
        )
        for name in ("kl_multiplier_lr", "kl_multiplier_max"):
            object.__setattr__(self, name, _mean_and_covariance(name, getattr(self, name)))
        if self.multiplier_max is not None and self.solver == "slsqp":
            raise ValueError(f"multiplier_max must be None with solver='slsqp', got {self.multiplier_max}")

    @property
    def uses_threshold(self) -> bool:
        """Whether learning depends on the discounted threshold, which assumes episodes of full length."""
        return self.cost_level == "critic"


def _mean_and_covariance(name: str, numbers: tuple[float, ...]) -> tuple[float, float]:
    """Returns a setting's numbers for mean and covariance; files of version 0.1.0 have one for both."""
    if len(numbers) not in (1, 2):
        raise ValueError(f"{name} must be one number >= 0 or two (mean, covariance), got {numbers}")
    return numbers[0], numbers[-1]
