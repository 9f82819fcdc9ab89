"""The critics of off-policy policies: settings, n-step targets, losses.

Dimension letters: ``B`` batch, ``K`` steps of the n-step window, ``C`` costs, ``E`` members of an ensemble,
``M`` targets for each cost, ``S = 1 + C * M`` signals (reward first): M is 1, or E where every member of a
cost's ensemble has a target of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from tianshou.data.types import RolloutBatchProtocol
from torch import Tensor

from fsrl_ext.errors import check_fields
from fsrl_ext.functional.returns import ThresholdUnit, nstep_targets
from fsrl_ext.net.values import CostReduction, QValues, reduce_cost
from fsrl_ext.policy.base import PolicyConfig, per_cost, to_device
from fsrl_ext.policy.offpolicy.replay import ReplayStatistics

Threshold = Literal["auto", "paper", "stationary", "finite"]


@dataclass(frozen=True, kw_only=True)
class OffpolicyConfig(PolicyConfig):
    """Settings of critics that learn from a replay buffer.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    gamma: float = 0.97
    """Discount factor of reward and costs, in (0, 1)."""
    cost_gamma: float | None = None
    """Discount factor of the costs, in (0, 1); ``None`` for ``gamma``."""
    tau: float = 0.05
    """Share of the way to the newest networks that the target networks move per update, in (0, 1]."""
    estimation_step: int = 2
    """Number n of steps in the n-step targets of the critics, >= 1."""
    cost_estimation_step: int | None = None
    """Number of steps in the n-step targets of the cost critics, >= 1; ``None`` for ``estimation_step``."""
    cost_reduction: CostReduction = "mean"
    """Estimate that an ensemble of cost critics gives: its ``mean``, its maximum (``max``), or its mean plus
    ``ucb_scale`` standard deviations (``ucb``)."""
    ucb_scale: float = 1.0
    """Standard deviations above the ensemble's mean with ``cost_reduction`` ``ucb``, >= 0."""
    normalise_signals: bool = True
    """Whether the critics learn reward and costs divided by their standard deviations over the buffer, so
    that no setting depends on the units of reward and cost."""
    bound_targets: bool = True
    """Whether the critics' targets stay between the lowest and the highest value that the rewards and costs
    in the buffer allow."""
    time_limits: Literal["bootstrap", "end"] = "bootstrap"
    """What follows a state in which a time limit ends an episode: further states, as if the episode went on
    (``bootstrap``), or nothing (``end``), which suits observations that tell the time."""
    goal_reward: float | None = None
    """Reward from which on a step reaches a goal, with which the reward critics' returns end as in a terminal
    state, while the episode and the costs go on; ``None`` for no such step. The code of the CVPO paper ends
    returns where a button is pressed, which is 0.5 on the tasks with ``Fixed`` in their names."""
    normalise_observations: bool = True
    """Whether features of the observations that are far from unit size are shifted by their mean and divided
    by their standard deviation; both are saved with the policy."""
    normalise_steps: int = 100_000
    """Number of environment steps, from the first on, that give these means and deviations, >= 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            finite=("goal_reward",),
            non_negative=("ucb_scale",),
            unit_interval=("tau",),
            open_unit_interval=("cost_gamma",),
            at_least_one=("estimation_step", "cost_estimation_step", "normalise_steps"),
            choices={
                "cost_reduction": get_args(CostReduction),
                "time_limits": ("bootstrap", "end"),
            },
        )

    @property
    def discount_of_costs(self) -> float:
        """Discount factor of the costs in force: ``cost_gamma``, or else ``gamma``."""
        return self.gamma if self.cost_gamma is None else self.cost_gamma

    @property
    def longest_window(self) -> tuple[int, str]:
        """Steps of the longest window that targets need, and the name of its setting."""
        of_costs = (self.cost_estimation_step or 0, "cost_estimation_step")
        return max((self.estimation_step, "estimation_step"), of_costs, key=lambda x: x[0])

    def statistics(self, num_costs: int) -> ReplayStatistics:
        """Returns the statistics of a buffer, before any collect, as these settings want them."""
        return ReplayStatistics(
            num_costs,
            gamma=self.gamma,
            cost_gamma=self.discount_of_costs,
            limit_unit=self.limit_unit,
            normalise_signals=self.normalise_signals,
            normalise_observations=self.normalise_observations,
            normalise_steps=self.normalise_steps,
        )

    def reduce_cost(self, q: QValues) -> Tensor:
        """Returns one estimate per cost, ``[C, ...]``, from the ensembles ``q.cost [C, E, ...]``."""
        return reduce_cost(q.cost, self.cost_reduction, self.ucb_scale)


@dataclass(frozen=True, kw_only=True)
class CostLevelConfig(OffpolicyConfig):
    """Settings of the level of the cost that a constraint is about; ``docs/cost_level.md``.

    :raises ValueError: for a value outside its range; the message names the field, the value and the range.
    """

    cost_level: Literal["measured", "critic"] = "measured"
    """Where the level of the cost comes from, wherever critics decide about a constraint: from the
    ``measured`` costs of finished episodes, or from the ``critic`` alone, which is right only if the cost is
    spread evenly over episodes of full length."""
    cost_level_episodes: float = 2.0
    """Number of episodes, >= 0, that the former level counts for beside those of the newest collect."""
    threshold: Threshold = "auto"
    """With ``cost_level`` ``critic``: how the cost limit becomes a threshold for discounted cost critics:
    ``paper``, the discounted cost of one episode from its first step; ``stationary``, the level of a critic
    that bootstraps at time limits; ``finite``, that of a critic for which they are ends; ``auto``, the one of
    the last two that fits ``time_limits``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            non_negative=("cost_level_episodes",),
            choices={"cost_level": ("measured", "critic"), "threshold": get_args(Threshold)},
        )

    @property
    def threshold_unit(self) -> ThresholdUnit:
        """Unit of the critics' threshold; ``auto`` is the one that their targets give."""
        if self.threshold != "auto":
            return self.threshold
        return "stationary" if self.time_limits == "bootstrap" else "finite"


def to_tensors(batch: RolloutBatchProtocol, data: ReplayStatistics) -> None:
    """Replaces ``batch.obs [B, O]``, as the networks see it, and ``batch.act [B, A]`` by tensors."""
    assert isinstance(batch.obs, np.ndarray | Tensor), "vectors or images"
    device = data.signal_scale.device
    batch.obs = data.observations(to_device(batch.obs, device))
    batch.act = to_device(batch.act, device)


def nstep_windows(buffer: Any, indices: np.ndarray, config: OffpolicyConfig) -> tuple[Any, ...]:
    """Reads the windows of the n-step targets that start at the transitions ``indices [B]``.

    :param buffer: a buffer of :mod:`fsrl_ext.data`.
    :return: the window of the reward, and that of the costs if it has another length.
    """
    lengths = (config.estimation_step, config.cost_estimation_step or config.estimation_step)
    return tuple(buffer.nstep_window(indices, x) for x in dict.fromkeys(lengths))


def nstep_returns(
    windows: Sequence[Any],
    bootstrap: Tensor,
    *,
    config: OffpolicyConfig,
    data: ReplayStatistics,
    bonus: Tensor | None = None,
) -> Tensor:
    """Computes the n-step targets ``[B, S]`` of reward and costs, M for each cost, in units of the scales.

    A terminal state stops bootstrapping for reward and costs alike, a time limit only with ``time_limits``
    ``end``, a step with ``goal_reward`` or more only for the reward;
    :func:`~fsrl_ext.functional.returns.nstep_targets` gives the equation.

    :param windows: result of :func:`nstep_windows`.
    :param bootstrap: ``[B, S]`` values of the states after the last steps of the signals' windows, in units
        of the scales.
    :param config: discount factors, bounds and what time limits are.
    :param data: scales and bounds.
    :param bonus: ``[K, B]``, a bonus on the reward of the state after each step, in units of the reward's
        scale, or ``None``.
    """
    repeats = (bootstrap.shape[1] - 1) // (data.signal_scale.shape[0] - 1)
    if config.bound_targets:
        low, high = (_per_target(x, repeats) for x in (data.value_low, data.value_high))
        if bonus is not None:
            # The highest and the lowest bonus of the batch stand for those of all later states.
            widest = torch.stack([bonus.amin(), bonus.amax()]) / (1.0 - config.gamma)
            low, high = low.clone(), high.clone()
            low[0] += widest[0].clamp(max=0.0)
            high[0] += widest[1].clamp(min=0.0)
        bootstrap = bootstrap.clamp(low, high)

    def targets(window: Any, of: slice, gamma: float, *, to_goal: bool = False) -> Tensor:
        alive = to_device(window.alive, bootstrap.device)
        last = window.terminated if config.time_limits == "bootstrap" else window.ended
        ended = to_device(last, bootstrap.device)
        if to_goal:
            # The window ends with the first step that reaches a goal.
            reached = alive & to_device(window.signals[..., 0] >= config.goal_reward, alive.device)
            alive = alive & (reached.cumsum(0) - reached.long() == 0)
            ended = ended | reached.any(0)
        signals = _per_target(to_device(window.signals, bootstrap.device) / data.signal_scale, repeats)
        return nstep_targets(
            signals[..., of], alive, ended, bootstrap[:, of], gamma, bonus if of.start is None else None
        )

    to_goal, cost_gamma = config.goal_reward is not None, config.discount_of_costs
    if len(windows) == 1 and cost_gamma == config.gamma and not to_goal:
        return targets(windows[0], slice(None), config.gamma)
    of_reward = targets(windows[0], slice(1), config.gamma, to_goal=to_goal)
    return torch.cat([of_reward, targets(windows[-1], slice(1, None), cost_gamma)], dim=1)


def _per_target(values: Tensor, repeats: int) -> Tensor:
    """Returns ``values [..., 1 + C]`` with each cost repeated for its M targets, ``[..., 1 + C * M]``."""
    if repeats == 1:
        return values
    return torch.cat([values[..., :1], values[..., 1:].repeat_interleave(repeats, dim=-1)], dim=-1)


@dataclass(frozen=True)
class CriticLosses:
    """Squared errors of all critics on one batch, and the gradient of their sum in the critics' values."""

    total: Tensor
    """0-dim: the batch's mean squared error, summed over signals and members; without a graph."""
    q: QValues
    """Values that the critics gave the batch, in units of the scales, with their graph."""
    reward: Tensor
    """0-dim: mean squared error over the batch and the reward's members."""
    cost: Tensor
    """0-dim: mean squared error over the batch, costs and their members."""
    gradients: tuple[Tensor, Tensor]
    """The gradient of ``total`` in ``q.reward`` and in ``q.cost``, of their shapes."""
    priorities: Tensor | None = None
    """``[B]`` mean absolute errors of all members, in units of the scales, for a prioritised buffer; ``None``
    for another buffer."""

    def backward(self) -> None:
        """Adds the gradient of ``total`` to those of the critics' parameters."""
        torch.autograd.backward(tuple(self.q), self.gradients)

    def metrics(self, data: ReplayStatistics) -> dict[str, Tensor]:
        """Returns the losses, and mean critic values in units of reward and cost, 0-dim, without graph."""
        q_cost = self.q.cost.detach().mean((1, 2)) * data.signal_scale[1:]
        values = {
            "loss/critic_reward": self.reward,
            "loss/critic_cost": self.cost,
            "q/reward": self.q.reward.detach().mean() * data.signal_scale[0],
        }
        return values | per_cost("q/cost", q_cost)


@torch.no_grad()
def critic_losses(q: QValues, targets: Tensor, weights: Tensor | None = None) -> CriticLosses:
    """Computes the squared error of each ensemble member on the targets ``[B, S]`` of its signal.

    :param q: ``reward [E, B]`` and ``cost [C, E, B]``.
    :param targets: n-step targets of :func:`nstep_returns`, reward first.
    :param weights: ``[B]`` importance weights of a prioritised buffer; ``None`` for equal ones.
    """
    of_reward = q.reward - targets[:, 0]
    of_cost = q.cost - targets[:, 1:].T.unflatten(0, (q.cost.shape[0], -1))
    reward, cost = of_reward.square().mean(), of_cost.square().mean()
    total = reward * q.reward.shape[0] + cost * (q.cost.shape[0] * q.cost.shape[1])
    factor = 2.0 / targets.shape[0]
    if weights is not None:
        return _weighted(q, of_reward, of_cost, weights, factor)
    return CriticLosses(total, q, reward, cost, (factor * of_reward, factor * of_cost))


def _weighted(q: QValues, of_reward: Tensor, of_cost: Tensor, weights: Tensor, factor: float) -> CriticLosses:
    """Weights the squares of errors ``[E, B]`` and ``[C, E, B]`` by ``weights [B]``; ``factor`` is 2 / B."""
    reward, cost = ((weights * x.square()).mean() for x in (of_reward, of_cost))
    total = reward * of_reward.shape[0] + cost * (of_cost.shape[0] * of_cost.shape[1])
    errors = torch.cat([of_reward, of_cost.flatten(0, 1)])
    gradients = (factor * weights * of_reward, factor * weights * of_cost)
    return CriticLosses(total, q, reward, cost, gradients, errors.abs().mean(0))


def importance_weights(batch: RolloutBatchProtocol, device: torch.device) -> Tensor | None:
    """Returns the importance weights ``[B]`` of a batch of a prioritised buffer, ``None`` for another one."""
    weights = getattr(batch, "weight", None)
    return None if weights is None else to_device(weights, device)


def hand_back_priorities(batch: Any, losses: CriticLosses) -> None:
    """Puts new priorities where Tianshou's ``post_process_fn`` takes them for a prioritised buffer."""
    if losses.priorities is not None:
        batch.weight = losses.priorities
