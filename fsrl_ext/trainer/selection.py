"""Which checkpoint is the best one: feasibility first, then return.

The rule of ``docs/evaluation.md``: a checkpoint is *feasible* when, for every cost, the mean over its
evaluation episodes plus one standard error is at most the limit. Among feasible checkpoints the one with the
highest mean return is the best. If no checkpoint is feasible, the one with the least violation is, and it is
reported as infeasible.

The episodes of a candidate may end early when it is clear that it will not replace the best checkpoint, see
:func:`is_clearly_not_best`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data.stats import CostCollectStats, any_cost_above


def largest_violation(
    cost_mean: Sequence[float] | np.ndarray,
    cost_stderr: Sequence[float] | np.ndarray,
    cost_limit: Sequence[float],
) -> float:
    """Return the largest excess of mean cost plus one standard error over its limit, relative to the limit.

    A limit below 1 counts as 1 in the denominator. Without a finite limit the violation is ``-inf``.

    :param cost_mean: ``[C]`` mean episode costs.
    :param cost_stderr: ``[C]`` standard errors of these means.
    :param cost_limit: ``[C]``.
    """
    limits = np.asarray(cost_limit, dtype=float)
    constrained = np.isfinite(limits)
    excess = (np.asarray(cost_mean) + np.asarray(cost_stderr) - limits)[constrained]
    return float((excess / np.maximum(limits[constrained], 1.0)).max(initial=-math.inf))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes of one policy, judged against the cost limits; ``E`` episodes, ``C`` costs.

    :param env_step: environment steps that the policy had been trained for.
    :param returns: ``[E]`` undiscounted returns.
    :param costs: ``[E, C]`` episode costs in the unit of the limits; every verdict is about them.
    :param cost_limit: the limits ``[C]`` on them, one number per cost.
    :param limit_unit: unit of the limits and of ``costs``: ``"episode"`` for sums of costs, ``"discounted"``
        for discounted sums.
    :param other_costs: ``[E, C]`` costs of the same episodes in the other unit; ``None`` where nobody counted
        them.
    :param seeds: ``[E]`` the environment seed of each episode; ``None`` for episodes without a seed of their
        own, such as those of training data, which are in the order in which they ended.
    :param cost_names: names of the costs ``[C]`` for tables; ``None`` for costs without names.
    :raises ValueError: there is no episode, or the shapes do not fit.
    """

    env_step: int
    returns: np.ndarray
    costs: np.ndarray
    cost_limit: tuple[float, ...]
    seeds: tuple[int, ...] | None = None
    cost_names: tuple[str, ...] | None = None
    limit_unit: LimitUnit = "episode"
    other_costs: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.costs.shape != (len(self.returns), len(self.cost_limit)) or not len(self.returns):
            raise ValueError(
                f"costs must have shape [{len(self.returns)} episodes, {len(self.cost_limit)} costs] "
                f"with at least one episode, got {list(self.costs.shape)}"
            )
        if self.other_costs is not None and self.other_costs.shape != self.costs.shape:
            raise ValueError(
                f"other_costs must have the shape {list(self.costs.shape)} of costs, "
                f"got {list(self.other_costs.shape)}"
            )
        if self.seeds is not None and len(self.seeds) != len(self.returns):
            raise ValueError(
                f"seeds must be {len(self.returns)}, one for each episode, got {len(self.seeds)}"
            )

    @classmethod
    def of_collect(
        cls,
        stats: CostCollectStats,
        *,
        env_step: int,
        cost_limit: tuple[float, ...],
        limit_unit: LimitUnit,
        seeds: tuple[int, ...] | None = None,
        order: np.ndarray | None = None,
    ) -> Evaluation:
        """Return the episodes that ended in a collect, judged by the limits.

        :param order: ``[E]`` places of the episodes in the order that they get; ``None`` for the order in
            which they ended.
        :raises ValueError: no episode ended, or the limits need discounted costs and there are none.
        """
        chosen = slice(None) if order is None else order
        others = stats.discounted_costs if limit_unit == "episode" else stats.costs
        return Evaluation(
            env_step=env_step,
            returns=stats.returns[chosen],
            costs=stats.limited_costs(limit_unit)[chosen],
            cost_limit=cost_limit,
            seeds=seeds,
            limit_unit=limit_unit,
            other_costs=None if others is None else others[chosen],
        )

    def followed_by(self, other: Evaluation) -> Evaluation:
        """Return the episodes of both evaluations of one policy; what else they hold is that of this one."""
        others = None
        if self.other_costs is not None and other.other_costs is not None:
            others = np.concatenate([self.other_costs, other.other_costs])
        return replace(
            self,
            returns=np.concatenate([self.returns, other.returns]),
            costs=np.concatenate([self.costs, other.costs]),
            other_costs=others,
            seeds=None if self.seeds is None or other.seeds is None else (*self.seeds, *other.seeds),
        )

    @property
    def return_mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def return_stderr(self) -> float:
        """Standard error of the mean return."""
        return float(_standard_error(self.returns))

    @property
    def cost_mean(self) -> np.ndarray:
        """``[C]`` mean episode costs, in the unit of the limits."""
        return self.costs.mean(0)

    @property
    def other_cost_mean(self) -> np.ndarray | None:
        """``[C]`` mean episode costs in the other unit; ``None`` where nobody counted them."""
        return None if self.other_costs is None else self.other_costs.mean(0)

    @property
    def cost_stderr(self) -> np.ndarray:
        """``[C]`` standard errors of the mean episode costs."""
        return _standard_error(self.costs)

    @property
    def violation(self) -> float:
        """Largest relative excess over a limit, see :func:`largest_violation`."""
        return largest_violation(self.cost_mean, self.cost_stderr, self.cost_limit)

    @property
    def feasible(self) -> bool:
        """Whether the mean of every cost plus one standard error is at most its limit."""
        return self.violation <= 0.0

    @property
    def share_above_limit(self) -> float:
        """Share of the episodes in which any cost exceeds its limit."""
        return float(any_cost_above(self.costs, self.cost_limit).mean())

    def is_better_than(self, other: Evaluation | None) -> bool:
        """Tell whether this checkpoint replaces the other one as the best."""
        if other is None:
            return True
        if self.feasible and other.feasible:
            return self.return_mean > other.return_mean
        if self.feasible != other.feasible:
            return self.feasible
        return self.violation < other.violation

    def summary(self) -> dict[str, object]:
        """Return plain numbers for result files."""
        return {
            "env_step": self.env_step,
            "episodes": len(self.returns),
            "return_mean": self.return_mean,
            "return_stderr": self.return_stderr,
            "cost_mean": self.cost_mean.tolist(),
            "cost_stderr": self.cost_stderr.tolist(),
            "feasible": self.feasible,
            "share_above_limit": self.share_above_limit,
            **({} if self.other_cost_mean is None else {"other_cost_mean": self.other_cost_mean.tolist()}),
        }


CLEAR = 2.0
"""Standard errors by which a candidate must be worse than the best checkpoint to be clearly so."""


def is_clearly_not_best(candidate: Evaluation, best: Evaluation | None) -> bool:
    """Tell from the first episodes of a candidate whether it will clearly not replace the best checkpoint.

    That is so if the best checkpoint is feasible, and

    - the candidate's mean return is lower by more than :data:`CLEAR` standard errors of the difference of the
      two means, or
    - the mean of a cost exceeds its limit by more than :data:`CLEAR` standard errors of that mean.

    The standard errors are those of ``m`` and ``E`` episodes whose variance is the larger one of the two
    sample variances, because few episodes may look alike by chance. As long as no checkpoint is feasible,
    nothing is clear.

    :param candidate: its first ``m >= 2`` episodes.
    :param best: the best checkpoint so far with its ``E`` episodes, or ``None``.
    """
    if best is None or not best.feasible:
        return False
    played, others = len(candidate.returns), len(best.returns)
    if played < 2:
        return False
    deviation = max(_deviation(candidate.returns), _deviation(best.returns))
    margin = CLEAR * float(deviation) * math.sqrt(1 / played + 1 / others)
    if candidate.return_mean < best.return_mean - margin:
        return True
    deviations = np.maximum(_deviation(candidate.costs), _deviation(best.costs))
    margins = CLEAR * deviations / math.sqrt(played)
    return bool((candidate.cost_mean > np.asarray(candidate.cost_limit) + margins).any())


def _deviation(values: np.ndarray) -> np.ndarray:
    """The sample standard deviation over the first axis; zero of a single value."""
    return values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def _standard_error(values: np.ndarray) -> np.ndarray:
    return _deviation(values) / math.sqrt(len(values))
