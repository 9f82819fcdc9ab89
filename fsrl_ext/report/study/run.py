"""One finished run as tables and figures see it: ``C`` costs, ``K`` selections, ``T`` points of a curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.cost_names import LimitUnit, limit_unit_of, names_of


@dataclass(frozen=True)
class Judged:
    """The final evaluation of one policy.

    :param env_step: environment steps that the policy had been trained for.
    :param return_mean: mean return over its episodes.
    :param cost_mean: ``[C]`` mean episode costs, in the unit of the limits.
    :param feasible: whether every mean cost plus one standard error is at most its limit.
    :param costs: ``[E, C]`` the episodes' costs; ``None`` where the file does not hold them.
    :param other_cost_mean: ``[C]`` mean episode costs in the other unit; ``None`` where the file lacks them.
    """

    env_step: int
    return_mean: float
    cost_mean: tuple[float, ...]
    feasible: bool
    costs: np.ndarray | None = None
    other_cost_mean: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Selections:
    """A run's selections: steps ``[K]``, mean returns ``[K]``, mean costs ``[K, C]``, verdicts ``[K]``."""

    steps: np.ndarray
    returns: np.ndarray
    costs: np.ndarray
    feasible: np.ndarray


@dataclass(frozen=True)
class Training:
    """The training episodes of a run, as means over collect cycles.

    :param steps: ``[T]`` environment steps.
    :param returns: ``[T]`` mean returns.
    :param costs: ``[T, C]`` mean episode costs, in the unit of the limits.
    :param episodes: ``[T]`` numbers of episodes that the means are over.
    :param violation: ``[T, C]`` sums of ``max(cost - limit, 0)`` over these episodes; ``None`` where the run
        did not record them. In a thinned curve they are over all episodes since the point before.
    :param thinned: whether some cycles are left out; ``episodes`` then also stands for those.
    """

    steps: np.ndarray
    returns: np.ndarray
    costs: np.ndarray
    episodes: np.ndarray
    violation: np.ndarray | None
    thinned: bool


@dataclass(frozen=True)
class StudyRun:
    """A finished run.

    :param path: of its folder or file.
    :param task: the environment's id, with the names of the costs if it has some, and with ``discounted`` if
        the limits are on discounted costs, because other limits make another task.
    :param settings: every field of its config by name, those of the policy and of the training too, and
        ``label``.
    :param limits: ``[C]`` the cost limits.
    :param label: of a result file in a folder below that of its policy; empty for others.
    :param seconds: wall time of the training with its evaluations.
    :param share_above: share of the training episodes above a limit; ``None`` without an episode.
    """

    path: Path
    settings: Mapping[str, Any]
    policy: str
    task: str
    label: str
    seed: int
    limits: tuple[float, ...]
    env_step: int
    train_episodes: int
    share_above: float | None
    seconds: float
    best: Judged
    last: Judged
    selections: Selections
    training: Training

    @property
    def cost_names(self) -> tuple[str, ...] | None:
        """The names of the costs; ``None`` for costs without names."""
        return names_of(self.settings)

    @property
    def limit_unit(self) -> LimitUnit:
        """The unit of the limits and of the costs that are judged."""
        return limit_unit_of(self.settings)

    @property
    def constrained(self) -> bool:
        """Whether any cost has a finite limit."""
        return bool(np.isfinite(self.limits).any())
