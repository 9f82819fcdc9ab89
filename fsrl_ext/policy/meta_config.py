"""Settings of Meta-CPO, of MAML with TRPO's steps, and of MAML with Lagrange multipliers."""

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

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    kl_bound: float = 0.01
    """Largest mean KL divergence of the policies before and after an inner step, in nats, > 0."""
    num_tasks: int = 3
    """Number of tasks in a meta-iteration, >= 1."""
    inner_steps: int = 3
    """Number of inner steps that adapt the policy to a task, each on new data, >= 0; with 0 one policy is
    learnt for all tasks."""
    meta_gradient: Mode = "exact"
    """Gradient in the meta-parameters: through all inner steps (``exact``), at the adapted parameters
    (``first_order``), or for the reward the way back from the adapted parameters (``reptile``)."""
    metric: Metric = "fisher"
    """Metric of inner steps and meta-steps: the damped Fisher matrix (``fisher``), or the identity
    (``euclidean``)."""
    outer_kl_bound: float = 0.03
    """Largest mean KL divergence of the meta-policies before and after a meta-step, in nats, > 0."""
    fit_critic_first: bool = True
    """Whether the critic of a task is fitted to the data of a collect before it judges them. Otherwise it is
    fitted afterwards, so that it judges them by the collects before."""
    fisher_fraction: float = 0.2
    """Share of the states, evenly spaced, over which Fisher matrices are averaged, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            positive=("outer_kl_bound",),
            at_least_zero=("inner_steps",),
            at_least_one=("num_tasks",),
            choices={"meta_gradient": get_args(Mode), "metric": get_args(Metric)},
        )

    @property
    def limit_gradient(self) -> LimitGradient:
        """Gradient of the measured surplus in the policy's parameters; Meta-CPO has it as a setting."""
        return "score"

    @property
    def step_backend(self) -> Backend:
        """Solver of inner steps and meta-steps; Meta-CPO has it as a setting."""
        return "exact"

    @property
    def outer_constraint(self) -> OuterConstraint:
        """Cost that the limits of a meta-step apply to; Meta-CPO has it as a setting."""
        return "mean"


@dataclass(frozen=True, kw_only=True)
class MetaCPOConfig(MAMLConfig):
    """Settings of :class:`~fsrl_ext.policy.MetaCPOPolicy`: cost limits constrain inner steps and meta-steps.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    limit_gradient: LimitGradient = "score"
    """Gradient of the measured cost surplus in the policy's parameters: its policy gradient (``score``), or
    zero (``detach``)."""
    cost_margin: float = 0.0
    """Share of the cost limit that inner steps and meta-steps keep free, in [0, 1)."""
    outer_constraint: OuterConstraint = "mean"
    """Cost after the adaptation that the limits of a meta-step apply to: the ``mean`` over the tasks, or that
    of ``each`` task."""
    step_backend: Backend = "exact"
    """Solver of inner steps and meta-steps: a closed form (``exact``), or a conic solver (``cvxpylayers``),
    which accepts further convex sets (``docs/convex_sets.md``)."""

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
    """Settings of meta-learning with Lagrange multipliers, which weight the costs in every step's objective.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    multiplier_gains: tuple[float, ...] = (0.5, 0.05, 0.5)
    """PID: proportional, integral and derivative gain of the multipliers, each >= 0, per surplus of the size
    of the cost limit."""
