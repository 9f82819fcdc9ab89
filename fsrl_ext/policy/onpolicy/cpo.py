"""Constrained Policy Optimization (Achiam et al. 2017, arXiv 1705.10528), with one or several constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch
from tianshou.policy.base import TLearningRateScheduler
from torch import nn

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.constrained_step import Backend, ExtraConstraints
from fsrl_ext.functional.returns import integral_margin
from fsrl_ext.policy.base import per_cost, to_device
from fsrl_ext.policy.onpolicy.base import OnpolicyConfig, OnpolicyPolicy, Rollout
from fsrl_ext.policy.onpolicy.trust_region import (
    CostChanges,
    TrustRegionConfig,
    check_extra_constraints,
    trust_region_update,
)


@dataclass(frozen=True, kw_only=True)
class CPOConfig(TrustRegionConfig):
    """Settings of :class:`CPOPolicy`.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    cost_margin: float = 0.0
    """Share of the cost limit that each step keeps free, in [0, 1)."""
    margin_rate: float = 0.1
    """Share of the excess of the episodes' cost over the limit by which an update widens the margin; by the
    same share of the room below the limit it narrows the margin again, down to ``cost_margin``. In [0, 1)."""
    entropy_weight: float = 0.0
    """Weight of the policy's entropy beside the reward advantage, in standard deviations of that advantage
    per nat, >= 0."""
    step_backend: Backend = "exact"
    """Solver of the constrained step: a closed form (``exact``), or a conic solver (``cvxpylayers``), which
    accepts further convex sets (``docs/convex_sets.md``)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            non_negative=("entropy_weight",),
            below_one=("cost_margin", "margin_rate"),
            choices={"step_backend": get_args(Backend)},
        )


class CPOPolicy(OnpolicyPolicy[CPOConfig]):
    """CPO as a Tianshou policy; TRPO without a finite limit.

    Every update solves the constrained trust-region problem exactly
    (:func:`~fsrl_ext.functional.constrained_step.constrained_step`) for the gradients of the surrogates and
    ``b = (J_c - limit + margin) / T`` with the cost ``J_c`` and length ``T`` of the collected episodes.

    A step that keeps its constraint on its own data lets the cost rise on the next data, because it exploits
    the noise of its gradients and because costs curve. The sum of these errors would settle the cost above
    the limit, so a second part of the margin integrates the excess, ``m <- m + margin_rate (J_c - limit)``.

    :param extra_constraints: further convex sets for the step, see
        :func:`~fsrl_ext.functional.constrained_step.constrained_step`; they need
        ``step_backend="cvxpylayers"``.

    :class:`~fsrl_ext.policy.onpolicy.base.OnpolicyPolicy` and :class:`CPOConfig` describe the other
    parameters.
    """

    config_type = CPOConfig

    def __init__(
        self,
        *,
        actor: nn.Module,
        critic: nn.Module,
        critic_optim: torch.optim.Optimizer,
        action_space: gym.Space,
        cost_limit: float | Sequence[float],
        max_episode_steps: int,
        obs_dim: int | None = None,
        observation_space: gym.Space | None = None,
        lr_scheduler: TLearningRateScheduler | None = None,
        extra_constraints: ExtraConstraints | None = None,
        config: OnpolicyConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            actor=actor,
            critic=critic,
            critic_optim=critic_optim,
            action_space=action_space,
            cost_limit=cost_limit,
            max_episode_steps=max_episode_steps,
            obs_dim=obs_dim,
            observation_space=observation_space,
            lr_scheduler=lr_scheduler,
            config=config,
            **settings,
        )
        check_extra_constraints(extra_constraints, self.config.step_backend)
        self.extra_constraints = extra_constraints

    def _set_up(self) -> None:
        self._changes = CostChanges()
        self.extra_margin = np.zeros(self.num_costs)
        """``[C]`` cost of an episode that steps keep free beyond ``cost_margin``."""

    def get_extra_state(self) -> dict[str, Any]:
        """Returns mean cost and length of the newest episodes, the last changes of that cost, the margin."""
        return {
            **super().get_extra_state(),
            "changes": self._changes.state_dict(),
            "extra_margin": self.extra_margin.tolist(),
        }

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        super()._load_progress(state)
        if "changes" in state:  # not in runs of version 0.1.0
            self._changes.load_state_dict(state["changes"])
            self.extra_margin = np.array(state["extra_margin"])

    def _next_margin(self) -> np.ndarray:
        """Returns the extra margin ``[C]`` of the next update: at most half of what ``cost_margin`` leaves.

        One update counts an excess of at most half the limit. The cost of an untrained policy would otherwise
        determine the margin for many updates.
        """
        limit = torch.tensor(self.cost_limit, dtype=torch.float64)
        return integral_margin(
            torch.from_numpy(self.extra_margin),
            torch.from_numpy(self.episode_cost),
            limit,
            rate=self.config.margin_rate,
            largest_excess=0.5 * limit,
            largest=0.5 * (1.0 - self.config.cost_margin) * limit,
        ).numpy()

    def _update_actor(self, rollout: Rollout, batch_size: int | None, repeat: int) -> dict[str, float]:
        # What became of the last update
        metrics = self._changes.play(self.episode_cost)
        # Constrained step inside the trust region
        margin = to_device(self.extra_margin / self.episode_length, self.device)
        reward, costs = rollout.advantages[:, 0], rollout.advantages[:, 1:].T
        deviation = reward.std(correction=0) + 1e-8 * self.signal_scale[0]
        step_metrics, search = trust_region_update(
            self.actor,
            rollout,
            # The step does not depend on the scale of the reward. Costs keep the scale of the surplus.
            advantage=(reward - reward.mean()) / deviation,
            cost_advantages=costs - costs.mean(1, keepdim=True),
            surplus=self._step_surplus() + margin,
            config=self.config,
            entropy_weight=self.config.entropy_weight,
            backend=self.config.step_backend,
            extra_constraints=self.extra_constraints,
        )
        # Change of an episode's cost that the surrogates, which are means over steps, expect
        change = self.episode_length * np.subtract(search.after.costs, search.before.costs)
        # Margin of the next update; a recovery cannot go further than it does, whatever the margin is
        metrics |= per_cost("constraint/extra_margin", self.extra_margin.tolist())
        if not step_metrics["step/case_recovery"]:
            self.extra_margin = self._next_margin()
        metrics |= step_metrics | self._changes.predict(self.episode_cost, change)
        return metrics | per_cost("constraint/expected_cost", (self.episode_cost + change).tolist())
