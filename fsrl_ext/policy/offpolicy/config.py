"""Settings that the off-policy Lagrangian policies share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.returns import ThresholdUnit
from fsrl_ext.net.critic import CostReduction
from fsrl_ext.policy.multiplier_config import MultiplierConfig

MultiplierSource = Literal["episodes", "critic"]
CostTargets = Literal["shared", "own"]


@dataclass(frozen=True, kw_only=True)
class LagrangianConfig(MultiplierConfig):
    """Critics, targets and multipliers of SAC-Lag, DDPG-Lag and TD3-Lag; ``docs/algorithms/lagrangian.md``.

    :raises ValueError: for values that cannot be used, naming them.
    """

    gamma: float = 0.97
    """Discount factor of reward and costs, in (0, 1)."""
    tau: float = 0.05
    """Polyak rate of the target networks, in (0, 1]."""
    estimation_step: int = 2
    """Steps of the n-step targets."""
    cost_reduction: CostReduction = "mean"
    """How an ensemble of cost critics becomes one estimate."""
    ucb_scale: float = 1.0
    """Standard deviations added by ``cost_reduction="ucb"``."""
    cost_targets: CostTargets = "shared"
    """Members of a cost ensemble learn one target, that of their reduced estimate, or each its own: their
    spread then tells how little is known."""
    multiplier_source: MultiplierSource = "episodes"
    """What they follow: the costs of the episodes that ended since the last collect cycle, once per cycle,
    against the limit; or the critics' estimate for the policy's actions, at every actor step, against the
    discounted threshold."""
    threshold: ThresholdUnit = "paper"
    """How the cost limit becomes the critics' threshold: see ``functional.returns.cost_threshold``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            non_negative=("ucb_scale",),
            unit_interval=("tau",),
            at_least_one=("estimation_step",),
            choices={
                "cost_reduction": get_args(CostReduction),
                "cost_targets": get_args(CostTargets),
                "multiplier_source": get_args(MultiplierSource),
                "threshold": get_args(ThresholdUnit),
            },
        )
        if not 0.0 < self.gamma < 1.0:
            raise ValueError(f"gamma must be in (0, 1) because time limits bootstrap, got {self.gamma}")

    @property
    def uses_threshold(self) -> bool:
        """Whether the discounted threshold, which takes episodes to be full length, decides anything."""
        return self.multiplier_source == "critic"
