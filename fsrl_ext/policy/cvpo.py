"""Constrained Variational Policy Optimization (Liu et al., ICML 2022, arXiv 2201.11927).

Dimension letters: ``B`` batch, ``N`` sampled actions, ``A`` action, ``C`` costs, ``S = 1 + C`` signals
(reward first), ``K`` steps of the n-step window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import gymnasium as gym
import numpy as np
import torch
from tianshou.data import Batch, ReplayBuffer
from tianshou.data.types import ObsBatchProtocol, RolloutBatchProtocol
from tianshou.policy import BasePolicy
from tianshou.policy.base import TLearningRateScheduler
from torch import Tensor, nn

from fsrl_ext.functional.estep import EStepSolution, solve_dual
from fsrl_ext.functional.estep_slsqp import solve_dual_slsqp
from fsrl_ext.functional.mstep import (
    decoupled_kl,
    is_full_covariance,
    sample_actions,
    update_kl_multipliers,
    weighted_log_likelihood,
)
from fsrl_ext.functional.returns import ThresholdUnit, as_cost_limits, cost_threshold
from fsrl_ext.net.critic import CostReduction, QValues, reduce_cost, reduce_reward
from fsrl_ext.policy.common import (
    MetricStats,
    check_fields,
    check_finite,
    check_normalised_box,
    nstep_returns,
    polyak_update,
    recent_step_cost,
)

ESTEP_STATUSES = ("slack", "active", "infeasible", "flat", "saturated")


@dataclass(frozen=True, kw_only=True)
class CVPOConfig:
    """Settings of :class:`CVPOPolicy`. The defaults are the tuned ones; see ``docs/algorithms/cvpo.md``."""

    gamma: float = 0.97
    """Discount factor of reward and costs, in (0, 1)."""
    tau: float = 0.05
    """Polyak rate of the target critics, in (0, 1]."""
    estimation_step: int = 2
    """Steps of the n-step targets."""
    kl_bound: float = 0.05
    """E-step: bound on the mean KL divergence between the reweighted and the old policy, in nats."""
    num_samples: int = 16
    """E-step: actions sampled for each state."""
    threshold: ThresholdUnit = "paper"
    """How the cost limit becomes a discounted threshold: see ``functional.returns.cost_threshold``."""
    solver: Literal["exact", "slsqp"] = "exact"
    """E-step: solved exactly, or loosely by SciPy as in the authors' code."""
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
    cost_reduction: CostReduction = "mean"
    """How an ensemble of cost critics becomes one estimate."""
    ucb_scale: float = 1.0
    """Standard deviations added by ``cost_reduction="ucb"``."""
    deterministic_eval: bool = True
    """Act with the mean outside training steps."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            positive=("kl_bound", "kl_bound_mean", "kl_bound_scale", "max_grad_norm"),
            non_negative=("kl_multiplier_lr", "kl_multiplier_max", "ucb_scale"),
            unit_interval=("tau", "old_policy_tau"),
            at_least_one=("estimation_step", "num_samples", "mstep_iterations"),
            choices={
                "threshold": get_args(ThresholdUnit),
                "solver": ("exact", "slsqp"),
                "old_policy": ("frozen", "polyak"),
                "cost_reduction": get_args(CostReduction),
            },
        )
        if not 0.0 < self.gamma < 1.0:
            raise ValueError(f"gamma must be in (0, 1) because time limits bootstrap, got {self.gamma}")
        if not 0.0 <= self.cost_calibration <= 1.0:
            raise ValueError(f"cost_calibration must be in [0, 1], got {self.cost_calibration}")
        if self.multiplier_max is not None and not self.multiplier_max >= 0:
            raise ValueError(f"multiplier_max must be None or >= 0, got {self.multiplier_max}")
        if self.multiplier_max is not None and self.solver == "slsqp":
            raise ValueError(f"multiplier_max must be None with solver='slsqp', got {self.multiplier_max}")


class CVPOPolicy(BasePolicy[MetricStats]):
    """CVPO as a Tianshou policy, for continuous actions and one or several costs.

    An E-step finds, for the states of a batch, how to reweight actions of the old policy so that reward is
    highest while the mean expected cost meets the threshold and the weights stay near uniform; it is solved
    exactly at every gradient step. An M-step fits the Gaussian actor to those weights inside a trust region.

    The actor works in the normalised box ``[-1, 1]``; raw samples may lie outside, the environment and the
    critics get them clipped, likelihoods are those of the raw sample.

    :param actor: ``(mean, scale), state = actor(obs)``; :class:`~fsrl_ext.net.GaussianActor` or Tianshou's
        ``ActorProb``.
    :param actor_optim: optimiser of the actor.
    :param critic: ``QValues = critic(obs, act)`` for reward and all costs, such as
        :class:`~fsrl_ext.net.EnsembleCritic`.
    :param critic_optim: optimiser of the critic.
    :param action_space: a bounded ``Box``.
    :param cost_limit: undiscounted cost that an episode may have, one number or one per cost; ``inf`` for no
        constraint. Can be set anew while training.
    :param max_episode_steps: the environment's time limit, for the threshold.
    :param observation_space: kept for Tianshou.
    :param lr_scheduler: called after every update.
    :param config: all other settings; single ones may be given by name instead, as in
        ``CVPOPolicy(..., gamma=0.99)``.
    :raises ValueError: for unusable spaces, limits or settings.
    """

    def __init__(
        self,
        *,
        actor: nn.Module,
        actor_optim: torch.optim.Optimizer,
        critic: nn.Module,
        critic_optim: torch.optim.Optimizer,
        action_space: gym.Space,
        cost_limit: float | Sequence[float],
        max_episode_steps: int,
        observation_space: gym.Space | None = None,
        lr_scheduler: TLearningRateScheduler | None = None,
        config: CVPOConfig | None = None,
        **settings: Any,
    ) -> None:
        check_normalised_box(action_space, "CVPO")
        super().__init__(
            action_space=action_space,
            observation_space=observation_space,
            action_scaling=True,
            action_bound_method="clip",
            lr_scheduler=lr_scheduler,
        )
        self.config = dataclasses.replace(config or CVPOConfig(), **settings)
        self.actor = actor
        self.actor_optim = actor_optim
        self.critic = critic
        self.critic_optim = critic_optim
        self.old_actor = deepcopy(actor).requires_grad_(False).eval()
        self.target_critic = deepcopy(critic).requires_grad_(False).eval()
        self.max_episode_steps = max_episode_steps
        # kl_multipliers and cost_bias survive saving and loading, the others only follow the device.
        self.kl_multipliers: Tensor
        self.cost_threshold: Tensor
        self.cost_bias: Tensor
        self.measured_cost: Tensor
        self.register_buffer("kl_multipliers", torch.zeros(2))
        self.register_buffer("cost_threshold", torch.zeros(0), persistent=False)
        self.cost_limit = cost_limit
        self.register_buffer("cost_bias", torch.zeros_like(self.cost_threshold))
        self.register_buffer("measured_cost", torch.zeros_like(self.cost_threshold), persistent=False)
        self._predicted_cost: Tensor | None = None
        self._acted_since_update = True
        self._last_solution: EStepSolution | None = None

    @property
    def cost_limit(self) -> tuple[float, ...]:
        """The limit on each cost of an episode, undiscounted."""
        return self._cost_limit

    @cost_limit.setter
    def cost_limit(self, value: float | Sequence[float]) -> None:
        limits = as_cost_limits(value)
        self._cost_limit = limits
        self.cost_threshold = self._discounted(limits)

    def _discounted(self, episode_costs: Sequence[float]) -> Tensor:
        """Undiscounted episode costs ``[C]`` in the unit of the cost critics, ``[C]`` float64."""
        thresholds = [
            cost_threshold(
                cost,
                max_episode_steps=self.max_episode_steps,
                gamma=self.config.gamma,
                unit=self.config.threshold,
            )
            for cost in episode_costs
        ]
        return torch.tensor(thresholds, dtype=torch.float64, device=self.kl_multipliers.device)

    def train(self, mode: bool = True) -> Self:
        """Sets actor and critic to training mode; the old and the target networks always evaluate.

        Nothing is done when the mode is as it was: Tianshou asks twice for each gradient step, and walking
        through all modules would take a tenth of it.
        """
        if mode != self.training:
            super().train(mode)
            self.old_actor.eval()
            self.target_critic.eval()
        return self

    def forward(
        self,
        batch: ObsBatchProtocol,
        state: Any = None,
        **kwargs: Any,
    ) -> Batch:
        """Actions ``[B, A]`` in the normalised box (raw, so possibly outside it) for ``batch.obs [B, O]``."""
        (mean, scale), state = self.actor(batch.obs, state=state)
        if self.is_within_training_step and not self.updating:
            self._acted_since_update = True
        if self.config.deterministic_eval and not self.is_within_training_step:
            act = mean
        else:
            act = sample_actions(mean, scale, 1).squeeze(1)
        return Batch(act=act, state=state)

    def process_fn(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        """Adds ``batch.returns [B, S]``: n-step targets of reward and costs."""
        if self._acted_since_update:
            self._measure_cost(buffer)
        batch.returns = nstep_returns(
            buffer,
            indices,
            self._next_state_values,
            gamma=self.config.gamma,
            num_steps=self.config.estimation_step,
            device=self.kl_multipliers.device,
        )
        return batch

    def _measure_cost(self, buffer: ReplayBuffer) -> None:
        """Compares the newest episodes' cost with what the critics said, both in the critics' unit."""
        costs = self.max_episode_steps * recent_step_cost(buffer, self.max_episode_steps)
        self.measured_cost = self._discounted(costs.tolist())
        if self._predicted_cost is not None:
            bias = self.measured_cost - self._predicted_cost
            self.cost_bias.lerp_(bias, self.config.cost_calibration)

    def _next_state_values(self, obs: Tensor) -> Tensor:
        """Values ``[B, S]`` of states under the old policy, from the target critics and one action each."""
        mean, scale = self.old_actor(obs)[0]
        act = sample_actions(mean, scale, 1).squeeze(1)
        q_reward, q_cost = self._reduce(self.target_critic(obs, self._executed(act)))
        return torch.cat([q_reward[:, None], q_cost.T], dim=1)

    @staticmethod
    def _executed(act: Tensor) -> Tensor:
        """Actions as the environment executes them; the one place where they are clipped for critics."""
        return act.clamp(-1.0, 1.0)

    def _reduce(self, q: QValues) -> tuple[Tensor, Tensor]:
        """One estimate per signal from the ensembles: ``[...]`` and ``[C, ...]``."""
        return reduce_reward(q.reward), reduce_cost(q.cost, self.config.cost_reduction, self.config.ucb_scale)

    def learn(self, batch: RolloutBatchProtocol, *args: Any, **kwargs: Any) -> MetricStats:
        """One gradient step of the critics, one exact E-step, one M-step.

        :raises NonFiniteError: if a loss is not finite; the parameters it would have changed stay.
        """
        device = self.kl_multipliers.device
        obs = torch.as_tensor(batch.obs, dtype=torch.float32, device=device)
        act = torch.as_tensor(batch.act, dtype=torch.float32, device=device)
        if self._acted_since_update and self.config.old_policy == "frozen":
            self.old_actor.load_state_dict(self.actor.state_dict())
        self._acted_since_update = False

        metrics = self._update_critics(obs, act, batch.returns)
        old = self.old_actor(obs)[0]
        actions, solution = self._estep(obs, *old)
        metrics |= self._mstep(obs, actions, solution.weights, *old)
        metrics |= self._estep_metrics(solution)

        polyak_update(self.target_critic, self.critic, self.config.tau)
        if self.config.old_policy == "polyak":
            polyak_update(self.old_actor, self.actor, self.config.old_policy_tau)
        return MetricStats.from_tensors(metrics)

    def _update_critics(self, obs: Tensor, act: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Regresses every ensemble member on its signal's targets ``[B, S]``."""
        q = self.critic(obs, self._executed(act))
        reward_loss = (q.reward - targets[:, 0]).square().mean(-1).sum()
        cost_loss = (q.cost - targets[:, 1:].T.unsqueeze(1)).square().mean(-1).sum()
        loss = reward_loss + cost_loss
        check_finite(loss, "critic loss")
        self.critic_optim.zero_grad()
        loss.backward()
        self.critic_optim.step()
        metrics = {
            "loss/critic_reward": reward_loss / q.reward.shape[0],
            "loss/critic_cost": cost_loss / q.cost[:, :, 0].numel(),
            "q/reward": q.reward.mean(),
        }
        return metrics | self._per_cost("q/cost", q.cost.mean((1, 2)))

    @torch.no_grad()
    def _estep(self, obs: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, EStepSolution]:
        """Raw actions ``[B, N, A]`` of the old policy and the weights that the constraint allows."""
        actions = sample_actions(mean, scale, self.config.num_samples)
        q_reward, q_cost = self._reduce(self.target_critic(obs, self._executed(actions)))
        threshold = self.cost_threshold - self.cost_bias
        self._predicted_cost = q_cost.double().mean((1, 2))
        if self.config.solver == "slsqp":
            self._last_solution = solve_dual_slsqp(
                q_reward,
                q_cost,
                kl_bound=self.config.kl_bound,
                cost_threshold=threshold,
                init=self._last_solution,
            )
            return actions, self._last_solution
        return actions, solve_dual(
            q_reward,
            q_cost,
            kl_bound=self.config.kl_bound,
            cost_threshold=threshold,
            multiplier_max=self.config.multiplier_max,
        )

    def _mstep(
        self, obs: Tensor, actions: Tensor, weights: Tensor, mean_old: Tensor, scale_old: Tensor
    ) -> dict[str, Tensor]:
        """Fits the actor to the weighted samples inside the two trust regions."""
        config = self.config
        bounds = actions.new_tensor([config.kl_bound_mean, config.kl_bound_scale])
        for _ in range(config.mstep_iterations):
            mean, scale = self.actor(obs)[0]
            kl = torch.stack(decoupled_kl(mean_old, scale_old, mean, scale))
            likelihood = weighted_log_likelihood(weights, actions, mean_old, scale_old, mean, scale)
            self.kl_multipliers.copy_(
                update_kl_multipliers(
                    self.kl_multipliers,
                    kl.detach(),
                    bounds,
                    lr=config.kl_multiplier_lr,
                    multiplier_max=config.kl_multiplier_max,
                )
            )
            loss = -likelihood + (self.kl_multipliers * (kl - bounds)).sum()
            check_finite(loss, "actor loss")
            self.actor_optim.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.actor.parameters(), config.max_grad_norm)
            self.actor_optim.step()
        deviations = scale
        if is_full_covariance(mean, scale):
            deviations = scale.square().sum(-1).sqrt()
        return {
            "loss/actor": loss,
            "mstep/kl_mean_relative": kl[0] / config.kl_bound_mean,
            "mstep/kl_scale_relative": kl[1] / config.kl_bound_scale,
            "mstep/multiplier_mean": self.kl_multipliers[0],
            "mstep/multiplier_scale": self.kl_multipliers[1],
            "policy/std": deviations.mean(),
        }

    def _estep_metrics(self, solution: EStepSolution) -> dict[str, Any]:
        metrics: dict[str, Any] = {
            "estep/kl_relative": solution.kl / self.config.kl_bound,
            "estep/temperature": solution.temperature,
            "estep/kkt_residual": solution.kkt_residual,
        }
        for status in ESTEP_STATUSES:
            metrics[f"estep/{status}"] = float(solution.status == status)
        metrics |= self._per_cost("estep/expected_cost", solution.expected_cost)
        metrics |= self._per_cost("estep/multiplier", solution.multipliers)
        metrics |= self._per_cost("estep/measured_cost", self.measured_cost)
        metrics |= self._per_cost("estep/cost_bias", self.cost_bias)
        return metrics | self._per_cost("estep/cost_threshold", self.cost_threshold)

    @staticmethod
    def _per_cost(name: str, values: Tensor) -> dict[str, Tensor]:
        """One entry per cost: the bare name for one cost, numbered names for several."""
        if len(values) == 1:
            return {name: values[0]}
        return {f"{name}_{i}": value for i, value in enumerate(values)}
