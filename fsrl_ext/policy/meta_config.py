"""Settings of Meta-CPO and of the meta-learners that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.constrained_step import Backend
from fsrl_ext.functional.meta_gradient import LimitGradient, Mode
from fsrl_ext.policy.multipliers import OnpolicyMultiplierConfig
from fsrl_ext.policy.onpolicy.trust_region import TrustRegionConfig

Metric = Literal["fisher", "euclidean"]
OuterConstraint = Literal["mean", "each"]


@dataclass(frozen=True, kw_only=True)
class MAMLConfig(TrustRegionConfig):
    """Settings of meta-learning without a constraint; ``docs/algorithms/meta_cpo.md``.

    :raises ValueError: for values that cannot be used, naming them.
    """

    kl_bound: float = 0.01
    """Mean KL divergence that a step of the adaptation may reach, in nats."""
    num_tasks: int = 3
    """Tasks of a meta-iteration."""
    inner_steps: int = 3
    """Steps of the adaptation to a task, each on data of its own; 0 learns one policy for all tasks."""
    meta_gradient: Mode = "exact"
    """Derivative of the adapted policy in the meta-parameters: exact, the identity (``first_order``), or the
    difference that the adaptation made (``reptile``)."""
    metric: Metric = "fisher"
    """Metric of inner and outer steps: the damped Fisher matrix, or the identity."""
    outer_kl_bound: float = 0.03
    """Mean KL divergence that the meta-policy may move in one meta-iteration, in nats."""
    fisher_fraction: float = 0.2
    """Share of the states that Fisher matrices are averaged over, evenly spaced, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("outer_kl_bound",),
            non_negative=("inner_steps",),
            at_least_one=("num_tasks",),
            choices={"meta_gradient": get_args(Mode), "metric": get_args(Metric)},
        )
        if self.inner_steps != int(self.inner_steps):
            raise ValueError(f"inner_steps must be a whole number >= 0, got {self.inner_steps}")

    @property
    def limit_gradient(self) -> LimitGradient:
        """Gradient of the measured surplus; a setting of Meta-CPO."""
        return "score"

    @property
    def step_backend(self) -> Backend:
        """How constrained steps are solved for; a setting of Meta-CPO."""
        return "exact"

    @property
    def outer_constraint(self) -> OuterConstraint:
        """What the limits of the meta-step are about; a setting of Meta-CPO."""
        return "mean"


@dataclass(frozen=True, kw_only=True)
class MetaCPOConfig(MAMLConfig):
    """Settings of :class:`~fsrl_ext.policy.MetaCPOPolicy`: limits bind in every constrained step."""

    limit_gradient: LimitGradient = "score"
    """Gradient of the measured surplus in the policy's parameters: its policy gradient, or none."""
    cost_margin: float = 0.0
    """Share of the limit that inner steps and meta-steps keep free, in [0, 1)."""
    outer_constraint: OuterConstraint = "mean"
    """Limits on the tasks' mean cost after the adaptation, or on each task's."""
    step_backend: Backend = "exact"
    """How inner steps and meta-steps are solved for: in closed form, or by a conic solver, which takes extra
    convex sets (``docs/convex_sets.md``)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            below_one=("cost_margin",),
            choices={
                "limit_gradient": get_args(LimitGradient),
                "outer_constraint": get_args(OuterConstraint),
                "step_backend": get_args(Backend),
            },
        )


@dataclass(frozen=True, kw_only=True)
class MAMLLagConfig(MAMLConfig, OnpolicyMultiplierConfig):
    """Settings of meta-learning with Lagrange multipliers, which price costs in every step."""

    cost_margin: float = 0.0
    """Share of the limit that the multipliers keep free, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, below_one=("cost_margin",))
