"""The E-step of CVPO on a batch: its threshold, its solution, and the episode cost that this stands for.

Dimension letters: ``B`` batch, ``N`` actions, ``C`` costs. Everything is on the host.

Source: Liu et al., "Constrained Variational Policy Optimization", ICML 2022 (arXiv 2201.11927), section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsrl_ext.functional.estep import EStepSolution, largest_reduction, solve_dual, solve_dual_slsqp
from fsrl_ext.policy.offpolicy.cost_level import CostLevel, MeasuredCost
from fsrl_ext.policy.offpolicy.cvpo_config import CVPOConfig


class EStep:
    """The E-steps of a policy, one for each batch.

    Values of the critics, and means of them, are in units of the scales ``[C]``.

    :param config: settings of the policy.
    :param measured_cost: estimate of the actor's episode cost.
    :param level_unit: value of discounted critics of an episode that costs one, in the unit of the limits.
    """

    def __init__(self, config: CVPOConfig, measured_cost: MeasuredCost, level_unit: float) -> None:
        self.config = config
        self.measured_cost = measured_cost
        self.level_unit = level_unit
        self.running_level = CostLevel(config.cost_level_rate)
        """Mean of Q_c over the batches."""
        self.slsqp_start: tuple[float, ...] | None = None
        """Temperature and multipliers of the last solution by SLSQP."""

    def threshold(
        self,
        q_cost: Tensor,
        old_cost: Tensor,
        log_prior: Tensor | None = None,
        *,
        scale: Tensor,
        bound: Tensor,
        discounted_bound: Tensor,
        steps: float,
    ) -> Tensor:
        """Returns the threshold ``[C]`` for a batch.

        :param q_cost: ``[C, B, N]``.
        :param old_cost: ``[C]`` mean of Q_c over the batch under the old policy.
        :param log_prior: log probabilities ``[B, N]`` of discrete actions under the old policy.
        :param scale: ``[C]`` scales of the costs, float64.
        :param bound: ``[C]`` limits less the margin, float64.
        :param discounted_bound: ``[C]`` the same in the unit of discounted critics.
        :param steps: of an episode, as they count in the unit of the limits.
        """
        if self.config.cost_level == "measured":
            assert self.measured_cost.value is not None, "process_fn comes before learn"
            slack = bound - self.measured_cost.extra_margin - self.measured_cost.value
            # Towards the limit the cost moves in parts of the distance, because critics rather underestimate
            # the changes; back from beyond the limit it moves at once.
            slack = torch.where(slack > 0, self.config.limit_approach * slack, slack)
            # A difference to the old policy counts once for each step of an episode, and in the discounted
            # unit as often as the discounts of the steps sum to.
            change = slack / (steps * scale)
            if self.config.recovery_share < 1.0:
                # An update that has to lower the cost as far as it can forgets the reward; and where episodes
                # take many collects, each of these updates asks again, until the first one can be measured.
                reach = largest_reduction(q_cost, self.config.kl_bound, log_prior)
                change = change - self.measured_cost.extra_share * reach
                change = change.maximum(-self.config.recovery_share * reach)
            return old_cost + change
        # The constraint is on the mean over all states. This batch's states may be dearer or cheaper than
        # that mean, so the threshold moves with them.
        self.running_level.add(old_cost)
        return discounted_bound / scale + (old_cost - self.running_level.running)

    def expected_cost(self, q_cost: Tensor, old_cost: Tensor, *, scale: Tensor, steps: float) -> Tensor:
        """Returns the episode cost ``[C]``, in the limits' unit, that mean values ``q_cost [C]`` stand for.

        :param q_cost: mean over a batch, under a reweighted policy.
        :param old_cost: the same under the old policy.
        :param scale: as for :meth:`threshold`, and so is ``steps``.
        """
        difference = (q_cost - old_cost) * scale
        if self.config.cost_level == "measured":
            assert self.measured_cost.value is not None
            return self.measured_cost.value + steps * difference
        return (self.running_level.running * scale + difference) / self.level_unit

    def solve(
        self, q_reward: Tensor, q_cost: Tensor, threshold: Tensor, log_prior: Tensor | None = None
    ) -> EStepSolution:
        """Returns the best weights ``[B, N]`` of the sampled actions, or of all discrete ones.

        :param q_reward: ``[B, N]``.
        :param q_cost: ``[C, B, N]``.
        :param threshold: ``[C]`` in the unit of ``q_cost``.
        :param log_prior: log probabilities ``[B, N]`` of discrete actions under the old policy.
        """
        if self.config.solver == "slsqp":
            solution = solve_dual_slsqp(
                q_reward,
                q_cost,
                kl_bound=self.config.kl_bound,
                cost_threshold=threshold,
                start=self.slsqp_start,
                log_prior=log_prior,
            )
            self.slsqp_start = (solution.temperature, *solution.multipliers.tolist())
            return solution
        return solve_dual(
            q_reward,
            q_cost,
            kl_bound=self.config.kl_bound,
            cost_threshold=threshold,
            multiplier_max=self.config.multiplier_max,
            log_prior=log_prior,
        )


def mean_cost(q_cost: Tensor, log_prior: Tensor | None) -> Tensor:
    """Returns the mean ``[C]`` of ``q_cost [C, B, N]`` over states and actions, in float64.

    :param log_prior: log probabilities ``[B, N]`` of the actions; ``None`` for actions that count alike.
    """
    if log_prior is None:
        return q_cost.mean((1, 2), dtype=torch.float64)
    return (log_prior.double().exp() * q_cost).sum(-1).mean(-1)
