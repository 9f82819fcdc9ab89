"""Constrained Policy Optimization (Achiam et al. 2017, arXiv 1705.10528), with one or several constraints."""

from __future__ import annotations

from dataclasses import dataclass

from fsrl_ext.errors import check_fields
from fsrl_ext.policy.onpolicy.base import OnpolicyPolicy, Rollout
from fsrl_ext.policy.onpolicy.trust_region import TrustRegionConfig, trust_region_update


@dataclass(frozen=True, kw_only=True)
class CPOConfig(TrustRegionConfig):
    """Settings of :class:`CPOPolicy`."""

    cost_margin: float = 0.0
    """Share of the limit that is kept free, in [0, 1)."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus, in standard deviations of the advantage per nat."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, non_negative=("entropy_weight",), below_one=("cost_margin",))


class CPOPolicy(OnpolicyPolicy[CPOConfig]):
    """CPO as a Tianshou policy; TRPO without a finite limit.

    Every update solves the constrained trust-region problem exactly
    (:func:`~fsrl_ext.functional.constrained_step.constrained_step`) for the gradients of the surrogates and
    ``b = (J_c - limit) / T`` with the cost ``J_c`` and length ``T`` of the collected episodes.

    All parameters are described in :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy` and
    :class:`CPOConfig`.
    """

    config_type = CPOConfig

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        reward, costs = rollout.advantages[:, 0], rollout.advantages[:, 1:].T
        return trust_region_update(
            self.actor,
            rollout,
            # The step does not feel the reward's scale; costs keep theirs, which is that of the surplus.
            advantage=(reward - reward.mean()) / (reward.std(correction=0) + 1e-8),
            cost_advantages=costs - costs.mean(1, keepdim=True),
            surplus=self._step_surplus(),
            config=self.config,
            entropy_weight=self.config.entropy_weight,
        )
