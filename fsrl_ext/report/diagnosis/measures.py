"""Measures of a critic: its level, its order of states and of actions, with intervals by resampling.

Dimension letters: ``T`` steps of an episode, ``n`` states, ``N`` actions of a state, ``S`` signals (reward
first, then the costs).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

TAIL_WEIGHT = 0.05
"""Largest weight that the time after a cut may have in a discounted sum."""
RESAMPLES = 200
"""Number of resamples of a bootstrap interval."""
BINS = 10
"""Number of bins of a calibration curve."""


class Estimate(NamedTuple):
    """A number with its 95% interval; NaN where the data do not tell it."""

    value: float
    low: float
    high: float


class Realised(NamedTuple):
    """Discounted sums of what happened from each step of each episode on."""

    sums: list[np.ndarray]
    """``[T, S]`` for each episode."""
    counted: list[np.ndarray]
    """``[T, S]`` bool: whether the sum has enough steps behind it to be compared with a critic."""
    tail_weight: np.ndarray
    """``[S]`` largest weight of the time after the cut in a counted sum; 0 where nothing follows the cut."""


def tail_window(gamma: float, length: int) -> int:
    """Return the number of steps after which the rest of a discounted sum weighs at most ``TAIL_WEIGHT``.

    :param gamma: discount factor in (0, 1).
    :param length: steps of an episode; the window is at most half of it, whatever the rest weighs then.
    """
    return min(math.ceil(math.log(TAIL_WEIGHT) / math.log(gamma)), max(length // 2, 1))


def discounted_sums(
    signals: np.ndarray, gamma: np.ndarray, tail: np.ndarray, stops: np.ndarray | None = None
) -> np.ndarray:
    r"""Return :math:`G_t = x_t + \gamma (1 - d_t) G_{t+1}`, ``[T, S]``.

    :param signals: x, ``[T, S]``.
    :param gamma: ``[S]``.
    :param tail: :math:`G_T`, ``[S]``.
    :param stops: d, ``[T, S]`` bool, steps after which a sum counts nothing; ``None`` for no such steps.
    """
    factors = np.broadcast_to(gamma, signals.shape) if stops is None else gamma * ~stops
    sums, total = np.empty(signals.shape), np.asarray(tail, dtype=float)
    for t in reversed(range(len(signals))):
        total = signals[t] + factors[t] * total
        sums[t] = total
    return sums


def realised_sums(
    signals: Sequence[np.ndarray],
    terminated: Sequence[bool],
    *,
    gamma: np.ndarray,
    ends: np.ndarray,
    time_limit: int,
    stops: Sequence[np.ndarray] | None = None,
) -> Realised:
    """Return what is realised from each step of complete episodes on, in the meaning of a critic.

    Nothing follows a terminal state. Nothing follows a time limit either, for a signal whose critic takes it
    as an end. For the other signals the critic looks beyond the time limit, where there are no data: the mean
    signal of the last :func:`tail_window` steps of the episodes then stands for every step after the limit,
    and only the states at least as many steps before the limit count.

    :param signals: ``[T, S]`` for each episode.
    :param terminated: whether a terminal state ended the episode; otherwise a time limit did.
    :param gamma: ``[S]`` discount factors; 1 only where ``ends``.
    :param ends: ``[S]`` bool, whether the critic of the signal takes a time limit as an end.
    :param time_limit: steps of an episode that nothing else ends.
    :param stops: ``[T, S]`` bool for each episode, see :func:`discounted_sums`.
    """
    windows = np.array([0 if e else tail_window(g, time_limit) for g, e in zip(gamma, ends, strict=True)])
    cut = [x for x, over in zip(signals, terminated, strict=True) if not over]
    tails = np.zeros(len(gamma))
    for s in np.flatnonzero(~ends):
        if cut:
            tails[s] = np.concatenate([x[-windows[s] :, s] for x in cut]).mean() / (1.0 - gamma[s])
    sums, counted = [], []
    for k, (x, over) in enumerate(zip(signals, terminated, strict=True)):
        tail = np.zeros_like(tails) if over else tails
        sums.append(discounted_sums(x, gamma, tail, None if stops is None else stops[k]))
        left = len(x) - np.arange(len(x))[:, None]
        counted.append((left >= windows) | over)
    return Realised(sums, counted, np.where(ends, 0.0, gamma**windows))


def ratio_of_means(rows: np.ndarray) -> float:
    """Return the mean of the first column of ``rows [n, 2]`` over that of the second; NaN for a mean of 0."""
    first, second = rows.mean(0)
    return float(first / second) if abs(second) > 1e-12 else math.nan


def bias(rows: np.ndarray) -> float:
    """Return the mean of the first column of ``rows [n, 2]`` less that of the second."""
    return float(rows[:, 0].mean() - rows[:, 1].mean())


def rank_correlation(rows: np.ndarray) -> float:
    """Return Spearman's rank correlation of the columns of ``rows [n, 2]``; ties share their mean rank.

    A constant first column ranks nothing, which is a correlation of 0. A constant second column gives nothing
    to rank, which is NaN.
    """
    from scipy.stats import rankdata  # takes a third of a second

    if len(rows) < 2 or np.ptp(rows[:, 1]) == 0:
        return math.nan
    if np.ptp(rows[:, 0]) == 0:
        return 0.0
    first, second = (rankdata(x) - (len(x) + 1) / 2 for x in rows.T)
    return float(first @ second / math.sqrt((first @ first) * (second @ second)))


def resampled(statistic: Callable[[np.ndarray], float], groups: Sequence[np.ndarray]) -> Estimate:
    """Return a statistic of all rows with a 95% percentile interval over resampled groups.

    The rows of one group, such as the states of one episode, depend on each other, so whole groups are drawn.

    :param statistic: of rows ``[n, k]``.
    :param groups: ``[n_i, k]`` each; empty ones count as drawn, too.
    :return: the ends are NaN with fewer than two groups that have rows.
    """
    everything = np.concatenate(groups)
    if not len(everything):
        return Estimate(math.nan, math.nan, math.nan)
    value = statistic(everything)
    if sum(len(x) > 0 for x in groups) < 2:
        return Estimate(value, math.nan, math.nan)
    generator = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([groups[i] for i in generator.integers(len(groups), size=len(groups))])
        values.append(statistic(drawn) if len(drawn) else math.nan)
    there = np.array(values)[np.isfinite(values)]
    if not len(there):
        return Estimate(value, math.nan, math.nan)
    low, high = np.percentile(there, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


class Spread(NamedTuple):
    """How much an action value depends on the action, and how much on the state."""

    over_actions: float
    """Root of the mean over states of the variance over actions."""
    over_states: float
    """Standard deviation over states of the mean over actions, without the noise of the sampled actions."""

    @property
    def relative(self) -> float:
        """The first over the second; NaN where all states are worth the same."""
        return self.over_actions / self.over_states if self.over_states > 0 else math.nan


def spread(values: np.ndarray) -> Spread:
    """Split the spread of action values ``[n, N]``, with N >= 2 actions drawn from the policy per state."""
    within = float(values.var(1, ddof=1).mean())
    between = float(values.mean(1).var()) - within / values.shape[1]
    return Spread(math.sqrt(within), math.sqrt(max(between, 0.0)))


class ActionOrder(NamedTuple):
    """Whether the differences between action values are real: values against replays from the same states."""

    correlation: Estimate
    """Rank correlation of value and realised sum over the actions of a state, mean over the states where the
    realised sums differ; 0 for a state whose values do not differ."""
    slope: Estimate
    """Change of the realised sum per change of the value, between actions of one state: 1 for a right critic,
    0 for differences that mean nothing; chance in the replays widens the interval and does not shift it."""
    states: int
    """Number of states where the realised sums differ."""
    predicted_deviation: float
    """Deviation of the values between actions of one state."""
    realised_deviation: float
    """Deviation of the realised sums between actions of one state, which chance makes larger."""


def action_order(predicted: np.ndarray, realised: np.ndarray) -> ActionOrder:
    """Compare action values with what was realised after each action.

    :param predicted: ``[n, N]`` values of N actions in each of n states.
    :param realised: ``[n, N]`` discounted sums from the state on, which begin with the action.
    """
    telling = np.ptp(realised, 1) > 0
    ranks = [
        np.array([[rank_correlation(np.stack(x, 1))]])
        for x in zip(predicted[telling], realised[telling], strict=True)
    ]
    unknown = Estimate(math.nan, math.nan, math.nan)
    correlation = resampled(lambda x: float(x.mean()), ranks) if ranks else unknown
    p, q = (x - x.mean(1, keepdims=True) for x in (predicted, realised))
    groups = [np.array([row]) for row in zip((p * q).sum(1), (p * p).sum(1), strict=True)]
    degrees = max(predicted.shape[1] - 1, 1) * len(predicted)
    return ActionOrder(
        correlation,
        resampled(ratio_of_means, groups),
        int(telling.sum()),
        math.sqrt(float((p * p).sum()) / degrees),
        math.sqrt(float((q * q).sum()) / degrees),
    )


def action_slope(predicted: Sequence[np.ndarray], realised: Sequence[np.ndarray], count: int) -> Estimate:
    """Return the change of the realised sum per change of the value, over the actions that were played.

    An action is drawn in each state, independent of everything before. What the state alone decides, and what
    chance decides later, is therefore the same for dear and cheap actions, and over many steps it averages
    out: 1 for a right critic, 0 for differences that mean nothing.

    :param predicted: for each episode ``[T]`` value of the action less the mean value of ``count`` other
        actions, drawn from the same policy in the same state; the noise of that mean is corrected for.
    :param realised: for each episode ``[T]`` discounted sum less a number that the action does not decide.
    """
    groups = [np.stack([p * q, p * p], 1) for p, q in zip(predicted, realised, strict=True)]
    estimate = resampled(ratio_of_means, groups)
    return Estimate(*((1.0 + 1.0 / count) * x for x in estimate))


def largest_share(phases: np.ndarray) -> tuple[int, Estimate]:
    """Return the phase with the largest share of a signal, and that share.

    :param phases: ``[E, P]`` sums of the signal in P phases of E episodes.
    :return: the number of the phase from 0; the share is NaN if all sums are 0.
    """
    place = int(phases.sum(0).argmax())
    rows = [np.array([[x[place], x.sum()]]) for x in phases]
    return place, resampled(ratio_of_means, rows)


def calibration(rows: np.ndarray) -> np.ndarray:
    """Return the means of the columns of ``rows [n, 2]`` in bins of the first one, ``[bins, 2]``.

    The bins have about the same number of rows, at most :data:`BINS` of them.
    """
    order = rows[rows[:, 0].argsort(kind="stable")]
    return np.array([part.mean(0) for part in np.array_split(order, min(BINS, len(order))) if len(part)])


def phase_means(values: np.ndarray, phases: np.ndarray, count: int) -> list[float]:
    """Return the mean of ``values [n]`` in each of ``count`` phases; NaN for a phase without values.

    :param phases: ``[n]`` number of the phase of each value.
    """
    sums, sizes = (np.bincount(phases, weights=w, minlength=count) for w in (values, np.ones(len(values))))
    return [float(s / n) if n else math.nan for s, n in zip(sums, sizes, strict=True)]
