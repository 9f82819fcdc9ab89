"""Trust Region Policy Optimization (Schulman et al. 2015, arXiv 1502.05477) with Lagrange multipliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fsrl_ext.errors import check_fields
from fsrl_ext.policy.multiplier_config import OnpolicyMultiplierConfig
from fsrl_ext.policy.multipliers import Multipliers
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Rollout
from fsrl_ext.policy.onpolicy.config import TrustRegionConfig
from fsrl_ext.policy.onpolicy.lagrangian import follow_episodes
from fsrl_ext.policy.onpolicy.trust_region import trust_region_update


@dataclass(frozen=True, kw_only=True)
class TRPOLagConfig(TrustRegionConfig, OnpolicyMultiplierConfig):
    """Settings of :class:`TRPOLagPolicy`."""

    entropy_weight: float = 0.0
    """Weight of the entropy bonus, in standard deviations of the advantage per nat."""

    def __post_init__(self) -> None:
        TrustRegionConfig.__post_init__(self)
        OnpolicyMultiplierConfig.__post_init__(self)
        check_fields(self, non_negative=("entropy_weight",))


class TRPOLagPolicy(OnpolicyPolicy[TRPOLagConfig]):
    """TRPO-Lagrangian as a Tianshou policy; plain TRPO without a finite limit.

    A line search that accepts nothing leaves every parameter as it was, bit for bit.

    The arguments are those of :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy`.
    """

    config_type = TRPOLagConfig

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.multipliers = Multipliers(len(self.cost_limit), self.config)

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        advantage, metrics = follow_episodes(self, self.multipliers, rollout, rescale=self.config.rescale)
        none = advantage.new_zeros(0)
        return metrics | trust_region_update(
            self.actor,
            rollout,
            advantage=advantage,
            cost_advantages=none.view(0, 1),
            surplus=none,
            config=self.config,
            entropy_weight=self.config.entropy_weight,
        )
