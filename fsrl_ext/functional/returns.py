"""Returns, advantages and cost thresholds, for reward and all costs in one pass.

Dimension letters: ``B`` batch, ``K`` steps of the n-step window, ``T`` steps in time order, ``S`` signals
(reward first, then the costs), ``C`` costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsrl_ext.errors import checked, shown

ThresholdUnit = Literal["paper", "stationary", "finite"]
LimitUnit = Literal["episode", "discounted"]
"""Unit of cost limits: the sum of the costs of an episode, or their discounted sum from its first step on."""


def as_cost_limits(
    cost_limit: float | Sequence[float] | np.ndarray | Tensor, name: str = "cost_limit"
) -> tuple[float, ...]:
    """Check a cost limit and return it as a tuple with one number per cost.

    :param cost_limit: cost that one episode may have, one number or one per cost. ``inf`` means
        that a cost is measured but not constrained.
    :param name: what errors call the limit.
    :raises ValueError: if it is empty, negative or NaN.
    """
    plain: Any = (
        cost_limit.tolist() if isinstance(cost_limit, np.ndarray | np.generic | Tensor) else cost_limit
    )
    limits = tuple(plain) if isinstance(plain, list | tuple) else (plain,)
    if not limits or any(not isinstance(x, Real) or isinstance(x, bool) or not float(x) >= 0 for x in limits):
        received = shown(limits[0] if len(limits) == 1 else list(limits))
        raise ValueError(f"{name} must be >= 0 (one number or one per cost), got {received}")
    return tuple(float(x) for x in limits)


@checked(at_least_one=("max_episode_steps",), closed_unit_interval=("gamma",), own=("cost_limit",))
def cost_threshold(
    cost_limit: float,
    *,
    max_episode_steps: int,
    gamma: float,
    unit: ThresholdUnit = "paper",
    limit_unit: LimitUnit = "episode",
) -> float:
    r"""Turn the limit on an episode's cost into the unit of a discounted cost critic.

    With :math:`T` steps an episode and a cost spread evenly over them,

    - ``"paper"``: :math:`d = \frac{L}{T} \frac{1 - \gamma^T}{1 - \gamma}` (Liu et al. 2022, appendix
      B.1), the discounted cost of one episode seen from its first step; tends to :math:`L` as
      :math:`\gamma \to 1`;
    - ``"stationary"``: :math:`d = \frac{L}{T (1 - \gamma)}`, the level of a critic that bootstraps at
      time limits. It is looser by :math:`1 / (1 - \gamma^T)`;
    - ``"finite"``: :math:`d = \frac{L}{T (1 - \gamma)} (1 - \frac{\gamma (1 - \gamma^T)}{T (1 - \gamma)})`,
      the mean over an episode's steps of a critic for which time limits are ends.

    All assume that episodes last T steps.

    A limit D on the discounted cost of an episode is the ``"paper"`` threshold itself. For the other two, L
    is the episode cost that D stands for, :math:`D = \frac{L}{T} \frac{1 - \gamma^T}{1 - \gamma}`.

    :param cost_limit: cost of one episode in ``limit_unit``, ``>= 0``; ``inf`` stays ``inf``.
    :param max_episode_steps: T, the environment's time limit in steps.
    :param gamma: discount factor in ``[0, 1]``; 1 is refused for ``"stationary"`` and ``"finite"``.
    :param limit_unit: whether the limit is on the sum of the costs of an episode or on the discounted sum.
    :raises ValueError: for values outside these ranges.
    """
    (limit,) = as_cost_limits(cost_limit)
    if unit != "paper" and gamma == 1.0:
        raise ValueError(f"gamma must be < 1 for the {unit!r} threshold, got 1.0")
    if math.isinf(limit):
        return math.inf
    if gamma == 1.0:
        return limit
    if limit_unit == "discounted":
        if unit == "paper":
            return limit
        limit *= max_episode_steps / discounted_steps(max_episode_steps, gamma)
    steps = 1.0 / (1.0 - gamma)
    of_episode = -math.expm1(max_episode_steps * math.log(gamma)) if gamma > 0 else 1.0
    if unit == "paper":
        steps *= of_episode
    elif unit == "finite":
        steps *= 1.0 - gamma * of_episode * steps / max_episode_steps
    return limit / max_episode_steps * steps


@checked(non_negative=("steps",), closed_unit_interval=("gamma",))
def discounted_steps(steps: float, gamma: float) -> float:
    r"""Return what an episode of T steps with a cost of one each costs, discounted from its first step.

    .. math:: \sum_{t=0}^{T-1} \gamma^t = \frac{1 - \gamma^T}{1 - \gamma}

    :param steps: T; a mean over episodes need not be a whole number.
    """
    if gamma == 1.0:
        return float(steps)
    return -math.expm1(steps * math.log(gamma)) / (1.0 - gamma) if gamma > 0 else float(steps > 0)


@checked()
def steps_before(starts: np.ndarray, owners: np.ndarray, first_steps: np.ndarray) -> np.ndarray:
    """Return for each row of data the number of steps that its episode had before it.

    :param starts: ``[T]`` bool: whether the row does not go on with the episode of the row before.
    :param owners: ``[T]`` number of each row's environment; the rows of an environment follow one another in
        the order of time.
    :param first_steps: ``[N]`` steps that the first episode of each environment had before the data.
    :return: ``[T]`` whole numbers.
    """
    places = np.arange(len(starts))
    new_owner = np.concatenate([[True], owners[1:] != owners[:-1]])[: len(starts)]
    start = np.maximum.accumulate(np.where(starts | new_owner, places, 0))
    first = np.maximum.accumulate(np.where(new_owner, places, 0))
    return places - start + np.where(start == first, first_steps[owners], 0)


@checked(shapes={"advantages": "T C", "weights": "T"})
def weighted_advantages(advantages: Tensor, weights: Tensor) -> Tensor:
    r"""Weight advantages so that their surrogate has the gradient of the discounted cost of an episode.

    The discounted cost of an episode, :math:`J = E \sum_t \gamma^t c_t`, has the gradient

    .. math:: \nabla J = E \sum_t \gamma^t A(s_t, a_t) \nabla \log \pi(a_t | s_t)

    (Sutton et al. 2000, theorem 1). Most implementations leave out :math:`\gamma^t`, and the sum is then the
    gradient of no function (Nota and Thomas, arXiv 1906.07073). A baseline that does not depend on the action
    leaves the expectation as it is; the weighted mean is subtracted:

    .. math:: A^w_t = w_t \Big( A_t - \frac{\sum_k w_k A_k}{\sum_k w_k} \Big), \quad w_t = \gamma^t

    The mean over steps of :math:`\rho_t A^w_t`, with probability ratios :math:`\rho`, estimates the change
    of J divided by the mean length of an episode.

    :param advantages: A, ``[T, C]``.
    :param weights: w, ``[T]``, the discount of each step from the first step of its episode.
    :return: ``[T, C]``.
    """
    w = weights[:, None]
    return w * (advantages - (w * advantages).sum(0) / w.sum())


@checked(non_negative_or_inf=("start", "end"), non_negative=("step",), positive=("decay_steps",))
def decayed_cost_limit(start: float, end: float, step: float, decay_steps: float) -> float:
    r"""Return a limit that tightens from ``start`` to ``end``, by the schedule of the CVPO authors' code.

    .. math:: end + (start - end) e^{-5 \, step / decay\_steps}

    After ``decay_steps`` less than 1% of the difference is left.

    :raises ValueError: if ``decay_steps`` is not positive or a limit is negative or NaN.
    """
    if math.isinf(end):
        return end
    return end + (start - end) * math.exp(-5.0 * step / decay_steps)


SCALE_FLOOR = 0.01
"""Smallest standard deviation of a signal that is divided by, relative to its root mean square."""


@checked()
def floored_deviation(deviation: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the scales ``[k]`` that signals or features are divided by: standard deviations, floored.

    :param deviation: ``[k]`` standard deviations.
    :param size: ``[k]`` root mean squares; where they are zero, the scale is one.
    """
    floored = np.maximum(deviation, SCALE_FLOOR * size)
    return np.where(floored > 0.0, floored, 1.0)


@checked(
    shapes={"margin": "C", "cost": "C", "aim": "C", "largest_excess": "C", "largest": "C"},
    below_one=("rate",),
)
def integral_margin(
    margin: Tensor, cost: Tensor, aim: Tensor, *, rate: float, largest_excess: Tensor, largest: Tensor
) -> Tensor:
    r"""Widen the margin below a cost limit while measured costs exceed their aim, and narrow it otherwise.

    This is the integral part of a controller, with bounds against wind-up:

    .. math:: r \leftarrow clip(r + g \, clip(J - b, -e, e),\; 0,\; r_{max})

    :param margin: r, ``[C]``; likewise all other tensors, in cost of an episode.
    :param cost: J, measured.
    :param aim: b; where it is ``inf``, the margin is zero.
    :param rate: g, in [0, 1).
    :param largest_excess: e, the largest excess that one measurement counts.
    :param largest: :math:`r_{max}`.
    """
    excess = (cost - aim).clamp(-largest_excess, largest_excess)
    widened = (margin + rate * excess).clamp(min=0.0).minimum(largest)
    return torch.where(torch.isfinite(aim), widened, 0.0)


@checked(
    shapes={
        "signals": "K B S",
        "alive": "bool K B",
        "terminated": "bool B",
        "bootstrap": "B S",
        "bonus": "K B",
    },
    closed_unit_interval=("gamma",),
)
def nstep_targets(
    signals: Tensor,
    alive: Tensor,
    terminated: Tensor,
    bootstrap: Tensor,
    gamma: float,
    bonus: Tensor | None = None,
) -> Tensor:
    r"""Compute n-step targets for reward and all costs in one pass.

    .. math:: y = \sum_{k<m} \gamma^k x_k + \sum_{0<k<m} \gamma^k b_k
        + \gamma^m (1 - \text{terminated}) (V(s_m) + b_m)

    where :math:`m` is the number of steps of the window that belong to the episode: a window that meets the
    end of an episode (or of the data) is shorter. :math:`b_k` is a bonus on the reward of being in the k-th
    state after the window's first one, such as SAC's entropy; the costs have none.

    :param signals: ``[K, B, S]`` reward and costs along the window.
    :param alive: ``[K, B]`` bool, whether step k still belongs to the window; ``alive[0]`` is true.
    :param terminated: ``[B]`` bool, whether the window's last step ended in a terminal state. A time limit
        does not count as one, so it bootstraps.
    :param bootstrap: ``[B, S]`` values of the state after the window's last step.
    :param gamma: discount factor.
    :param bonus: ``[K, B]``, the bonus of the state after each step; ``None`` for none. The last row is that
        of the state whose value is ``bootstrap``, also where a window is shorter.
    :return: ``[B, S]``.
    """
    num_steps = signals.shape[0]
    powers = gamma ** torch.arange(num_steps, dtype=signals.dtype, device=signals.device)
    discounts = alive.to(signals.dtype) * powers[:, None]
    partial = (discounts[..., None] * signals).sum(dim=0)
    length = alive.sum(dim=0)
    tail = torch.pow(gamma, length.to(signals.dtype)) * (~terminated).to(signals.dtype)
    targets = partial + tail[:, None] * bootstrap
    if bonus is not None:
        # An action follows in the states between, so none of them is terminal.
        targets[:, 0] += (discounts[1:] * bonus[:-1]).sum(dim=0) + tail * bonus[-1]
    return targets


class Advantages(NamedTuple):
    """Answer of :func:`generalised_advantages`."""

    advantages: Tensor
    """``[T, ..., S]``."""
    returns: Tensor
    """``[T, ..., S]`` targets of the value functions, ``advantages + values`` (TD(lambda))."""


@checked()
def generalised_advantages(
    signals: Tensor,
    values: Tensor,
    next_values: Tensor,
    *,
    terminated: Tensor,
    ends: Tensor,
    gamma: float | Sequence[float],
    gae_lambda: float | Sequence[float],
) -> Advantages:
    r"""Compute advantages and value targets of every step, by GAE (Schulman et al., arXiv 1506.02438).

    .. math::
        \delta_t &= x_t + \gamma (1 - \text{terminated}_t) V(s'_t) - V(s_t) \\
        A_t &= \delta_t + \gamma \lambda (1 - \text{ends}_t) A_{t+1}

    :math:`s'_t` is the state that the step led to. At a time limit, and where an epoch cuts an episode, it is
    the last observation of the episode so far and not the first one of the next episode. Both cases
    bootstrap; only a terminal state does not.

    The recursion is solved by doubling, in about log2(T) passes over all steps: a loop of T tensor operations
    is some hundred times slower for one long row.

    :param signals: ``[T, ..., S]`` reward and costs.
    :param values: ``[T, ..., S]`` values of the state before each step.
    :param next_values: ``[T, ..., S]`` values of the state after each step. The values of a terminal state
        are not read and may be anything, NaN included.
    :param terminated: ``[T, ...]`` bool, whether the step led to a terminal state.
    :param ends: ``[T, ...]`` bool, whether the next row does not continue this one, because of a terminal
        state, a time limit or an epoch's cut. The last row and a terminal state count as ends in any case.
    :param gamma: discount factor in [0, 1], one for all signals or one per signal; likewise ``gae_lambda``.
    :raises ValueError: for shapes that do not match and numbers outside [0, 1].
    """
    for name, other in (("values", values), ("next_values", next_values)):
        if other.shape != signals.shape:
            raise ValueError(f"{name} must have shape {list(signals.shape)}, got {list(other.shape)}")
    for name, flag in (("terminated", terminated), ("ends", ends)):
        if flag.shape != signals.shape[:-1] or flag.dtype != torch.bool:
            shape = list(signals.shape[:-1])
            raise ValueError(f"{name} must be bool of shape {shape}, got {flag.dtype} {list(flag.shape)}")
    discount = _per_signal("gamma", gamma, signals)
    decay = discount * _per_signal("gae_lambda", gae_lambda, signals)
    zero = signals.new_zeros(())
    ahead = torch.where(terminated[..., None], zero, discount * next_values)
    total = signals + ahead - values
    weight = torch.where((terminated | ends)[..., None], zero, decay).expand_as(total).clone()
    # After the pass with shift k, total_t is the sum of 2k terms and weight_t the factor of the next one.
    shift = 1
    while shift < len(total):
        total[:-shift] = total[:-shift] + weight[:-shift] * total[shift:]
        weight[:-shift] = weight[:-shift] * weight[shift:]
        shift *= 2
    return Advantages(total, total + values)


def _per_signal(name: str, value: float | Sequence[float], signals: Tensor) -> Tensor:
    """Check a factor and return it as one number or ``[S]``, in the dtype of the signals."""
    factor = torch.as_tensor(value, dtype=signals.dtype, device=signals.device)
    if factor.dim() > 0 and factor.shape != signals.shape[-1:]:
        raise ValueError(f"{name} must be one number or {signals.shape[-1]}, got {list(factor.shape)}")
    if not bool(((factor >= 0.0) & (factor <= 1.0)).all()):
        raise ValueError(f"{name} must be in [0, 1], got {value}")
    return factor
