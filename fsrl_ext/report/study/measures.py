"""What is measured of one run, and of the runs of a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fsrl_ext.report.study.run import Judged, StudyRun

COLLAPSED_BELOW = 0.5
"""Share of the best policy's return below which the last policy counts as collapsed."""

REACHED = 0.9
"""Share of the best return that a first policy must reach."""

TAIL = 0.1
"""Share of the episodes with the highest costs that the CVaR is over."""

LATE = 0.1
"""Share of the steps at the end of the training that late training episodes are from."""


def within_limits(costs: Sequence[float], limits: Sequence[float]) -> bool:
    """Whether every cost is at most its limit; a cost that is NaN is not."""
    return all(cost <= limit for cost, limit in zip(costs, limits, strict=True))


def has_collapsed(run: StudyRun, share: float = COLLAPSED_BELOW) -> bool:
    """Whether the last policy lost at least half of the best policy's return.

    For a return R of the best policy, it lost it below ``R - (1 - share) |R|``, which is ``share R`` for a
    positive R. Both returns are those of the final evaluation.
    """
    best = run.best.return_mean
    return run.last.return_mean < fraction_of(best, share)


def fraction_of(value: float, share: float) -> float:
    """``value - (1 - share) |value|``: a share of a positive value, and as much below a negative one."""
    return value - (1.0 - share) * abs(value)


def tail_mean(values: np.ndarray, share: float = TAIL) -> float:
    """CVaR: the mean of the highest ``share`` of the values ``[E]``.

    Where ``share E`` is no whole number, the last value that belongs to it counts in part (Rockafellar and
    Uryasev 2002, "Conditional value-at-risk for general loss distributions", proposition 8).
    """
    ordered = np.sort(values)[::-1]
    size = share * len(ordered)
    weights = np.clip(size - np.arange(len(ordered)), 0.0, 1.0)
    return float(weights @ ordered / size)


def cost_tail(judged: Judged) -> tuple[float, ...] | None:
    """``[C]`` the CVaR of the episode costs of a final evaluation; ``None`` without its episodes."""
    if judged.costs is None or not len(judged.costs):
        return None
    return tuple(tail_mean(cost) for cost in judged.costs.T)


@dataclass(frozen=True)
class Violation:
    """``[C]`` sums of ``max(cost - limit, 0)`` over the training episodes.

    :param kind: ``exact``; ``at least`` if only the mean costs of collect cycles are known, since the excess
        of a mean is at most the mean excess; ``about`` if some cycles are left out, too.
    """

    sums: tuple[float, ...]
    kind: Literal["exact", "at least", "about"]


def cumulative_violation(run: StudyRun) -> Violation:
    """The violation over a run's training episodes, as exactly as its files tell; NaN where they do not."""
    training = run.training
    if training.violation is not None:
        return Violation(tuple(training.violation.sum(0).tolist()), "exact")
    excess = np.maximum(training.costs - np.array(run.limits), 0.0) * training.episodes[:, None]
    unknown = np.isnan(excess).all(0) if len(excess) else np.full(len(run.limits), bool(run.train_episodes))
    sums = np.where(unknown, np.nan, np.nansum(excess, 0))
    return Violation(tuple(sums.tolist()), "about" if training.thinned else "at least")


def late_training(run: StudyRun) -> tuple[float, tuple[float, ...]] | None:
    """:func:`training_between` of the last tenth of the steps."""
    return training_between(run, (1.0 - LATE) * run.env_step, math.inf)


def training_between(run: StudyRun, start: float, end: float) -> tuple[float, tuple[float, ...]] | None:
    """Mean return and costs of the training episodes after ``start`` and up to ``end`` steps.

    Actions are sampled, and every collect cycle counts by its number of episodes. ``None`` if no episode
    ended there.
    """
    training = run.training
    there = (training.steps > start) & (training.steps <= end) & np.isfinite(training.returns)
    weights = training.episodes[there]
    if not weights.sum():
        return None
    weights = weights / weights.sum()
    return float(weights @ training.returns[there]), tuple((weights @ training.costs[there]).tolist())


def steps_to(run: StudyRun, target: float) -> float | None:
    """Environment steps of the first feasible selection whose mean return is at least the target."""
    points = run.selections
    reached = np.flatnonzero(points.feasible & (points.returns >= target))
    return float(points.steps[reached[0]]) if len(reached) else None


def seconds_at(run: StudyRun, steps: float) -> float:
    """Wall time at an environment step, as if every step took equally long; evaluations are included."""
    return run.seconds * steps / run.env_step if run.env_step else math.nan
