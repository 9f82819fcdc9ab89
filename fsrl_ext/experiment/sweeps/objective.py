"""The number that tuning maximises: the best feasible return, or how near a run came to being feasible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fsrl_ext.trainer import Evaluation
from fsrl_ext.trainer.selection import largest_violation

LOWEST_FEASIBLE = -1e9
"""The lowest value of a feasible policy; lower returns count as this value."""
FAILED = 2 * LOWEST_FEASIBLE
"""The value of a run that failed, which every other value exceeds."""


def objective(feasible: bool, return_mean: float, violation: float) -> float:
    r"""The value of one evaluated policy, which orders policies as the choice of the best one does.

    .. math:: J = \begin{cases} \max(R, -10^9) & \text{feasible} \\
        -10^9 \left(1 + \frac{v}{1 + v}\right) & \text{infeasible} \end{cases}

    ``R`` is the mean return and ``v > 0`` the violation, as :class:`~fsrl_ext.trainer.Evaluation` defines
    both. Every feasible policy exceeds all infeasible ones, whose values lie in ``(-2e9, -1e9)``.
    """
    if feasible:
        return max(return_mean, LOWEST_FEASIBLE)
    return LOWEST_FEASIBLE * (1 + violation / (1 + violation))


def best_objective(selections: Iterable[Mapping[str, Any]], cost_limit: Sequence[float]) -> float:
    """The value of the best policy among selections; :data:`FAILED` without any.

    :param selections: as ``result.json`` notes them.
    :param cost_limit: ``[C]`` limits of the run.
    """
    return max((_of_selection(x, cost_limit) for x in selections), default=FAILED)


def objective_of(evaluation: Evaluation) -> float:
    """The value of an evaluated policy."""
    return objective(evaluation.feasible, evaluation.return_mean, evaluation.violation)


def _of_selection(selection: Mapping[str, Any], cost_limit: Sequence[float]) -> float:
    violation = largest_violation(selection["cost_mean"], selection["cost_stderr"], cost_limit)
    return objective(selection["feasible"], selection["return_mean"], violation)
