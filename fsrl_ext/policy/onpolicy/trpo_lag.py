"""Trust Region Policy Optimization (Schulman et al. 2015, arXiv 1502.05477) with Lagrange multipliers."""

from __future__ import annotations

from dataclasses import dataclass

from fsrl_ext.errors import check_fields
from fsrl_ext.policy.multipliers import Multipliers, OnpolicyMultiplierConfig
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Rollout
from fsrl_ext.policy.onpolicy.lagrangian import follow_episodes
from fsrl_ext.policy.onpolicy.trust_region import TrustRegionConfig, trust_region_update


@dataclass(frozen=True, kw_only=True)
class TRPOConfig(TrustRegionConfig):
    """Settings of TRPO without a constraint.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    entropy_weight: float = 0.0
    """Weight of the policy's entropy beside the advantage, in standard deviations of the advantage per nat,
    >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, non_negative=("entropy_weight",))


@dataclass(frozen=True, kw_only=True)
class TRPOLagConfig(TRPOConfig, OnpolicyMultiplierConfig):
    """Settings of :class:`TRPOLagPolicy`.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """


class TRPOLagPolicy(OnpolicyPolicy[TRPOLagConfig]):
    """TRPO-Lagrangian as a Tianshou policy; plain TRPO without a finite limit.

    If the line search accepts no step, every parameter of the actor stays as it was, bit for bit.

    :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy` and :class:`TRPOLagConfig` describe all parameters.
    """

    config_type = TRPOLagConfig

    def _set_up(self) -> None:
        self.multipliers = Multipliers(self.num_costs, self.config)

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        # Multipliers, and the advantage of the Lagrangian
        advantage, metrics = follow_episodes(self, self.multipliers, rollout, rescale=self.config.rescale)
        # Step inside the trust region
        step_metrics, _ = trust_region_update(
            self.actor,
            rollout,
            advantage=advantage,
            config=self.config,
            entropy_weight=self.config.entropy_weight,
        )
        return metrics | step_metrics
