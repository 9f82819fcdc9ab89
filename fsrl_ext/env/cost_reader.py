"""Read the cost of a step from its info: one number, several numbers, or costs by name.

Dimension letters: ``C`` costs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fsrl_ext.cost_names import checked_names, select
from fsrl_ext.errors import checked

Cost = float | np.ndarray

_PREFIX = "cost_"
# safety-gymnasium's own sum, which is no separate cost.
_SUM = "cost_sum"


class ContractError(ValueError):
    """Reports a step or a reset that does not return what Gymnasium's do; the message names the task."""


class CostError(ContractError):
    """Reports a cost that breaks the contract; the message names environment and step."""


class MissingCostError(CostError):
    """Reports a step without a cost."""


class CostReader:
    """Reads `info["cost"]` and checks that it is a cost.

    A dictionary of costs by name stands for its values, in the order of the first step's dictionary.

    NaN and infinity pass, as they do in a reward. Collectors refuse both before they store anything, and name
    the environment and the step.

    :param env_id: the name of the environment in error messages.
    :param num_costs: the number of costs ``C``; None takes it from the first step.
    :raises ValueError: `num_costs` is below 1.
    """

    @checked(at_least_one=("num_costs",))
    def __init__(self, env_id: str, num_costs: int | None = None) -> None:
        self.env_id = env_id
        self.num_costs = num_costs
        self.names: tuple[str, ...] | None = None
        """The names of the costs ``[C]``; None for costs without names, and before the first step."""

    def __call__(self, info: Mapping[str, Any], step: int) -> Cost:
        """Return the cost of one step.

        :param info: the step's info.
        :param step: the step's number in its episode, from 1; error messages name it.
        :return: a float where ``C = 1``, else a new float32 array of shape ``[C]``.
        :raises MissingCostError: there is no entry "cost", it is None, or a named cost is missing.
        :raises CostError: the entry is no number, no 1-D array of ``C`` numbers and no dictionary of ``C``
            numbers.
        """
        cost = info.get("cost")
        if type(cost) is float and self.num_costs == 1:
            return cost
        return self._checked(cost, info, step)

    def _checked(self, cost: Any, info: Mapping[str, Any], step: int) -> Cost:
        where = f"{self.env_id}, step {step}"
        if cost is None:
            raise MissingCostError(
                f'{where}: info has no "cost" (it has {sorted(map(str, info))}); a safe-RL '
                'environment must put a number, or one number per cost, in info["cost"]'
            )
        given = cost
        if isinstance(cost, Mapping):
            cost = self._in_order(cost, where)
        elif self.names is not None:
            raise CostError(
                f'{where}: info["cost"] must be a dictionary of {", ".join(self.names)} as in the first '
                f"step, got {given!r}"
            )
        array = _as_array(cost)
        if array.dtype.kind not in "biuf" or array.ndim > 1 or array.size == 0:
            raise CostError(
                f'{where}: info["cost"] must be a number or a 1-D array of numbers, or a dictionary of '
                f"numbers by name, got {given!r}"
            )
        if self.num_costs is None:
            self.num_costs = array.size
        if array.size != self.num_costs:
            raise CostError(
                f'{where}: info["cost"] has {array.size} numbers, expected {self.num_costs} '
                "as registered or as in the first step"
            )
        return float(array.item()) if array.size == 1 else array.astype(np.float32)

    def _in_order(self, cost: Mapping[str, Any], where: str) -> list[Any]:
        """Return the values of a dictionary in the order of the first one."""
        if self.names is None:
            try:
                self.names = checked_names(tuple(cost), f'{where}: the names in info["cost"]')
            except ValueError as error:
                raise CostError(str(error)) from None
        _check_same(self.names, cost, where)
        return [cost[name] for name in self.names]


class NamedCostReader:
    """Reads costs by name: the sum of the costs that each name stands for, see `fsrl_ext.cost_names.select`.

    The costs are the entries of a dictionary `info["cost"]`, or else safety-gymnasium's
    `info["cost_hazards"]`, `info["cost_vases_contact"]` and so on.

    :param env_id: the name of the environment in error messages.
    :param costs: the names ``[C]``.
    :param known: the costs that the environment has, of which a step may leave out those that are 0; None
        takes them from the first step, and then every step must have all of them.
    :raises ValueError: the environment lacks a cost, or two names stand for the same one.
    """

    def __init__(self, env_id: str, costs: Sequence[str], known: Sequence[str] | None = None) -> None:
        self.env_id = env_id
        self.names = checked_names(costs)
        self.num_costs = len(self.names)
        self._known = None if known is None else tuple(known)
        self._may_leave_out = known is not None
        self._members = None if known is None else select(self.names, known, env_id)

    def __call__(self, info: Mapping[str, Any], step: int) -> Cost:
        """Return the costs of one step; see `CostReader`.

        :raises ValueError: the environment lacks a cost, or two names stand for the same one.
        """
        parts = named_parts(info)
        where = f"{self.env_id}, step {step}"
        if self._members is None:
            self._members, self._known = select(self.names, parts, self.env_id), tuple(parts)
        elif not self._may_leave_out:
            assert self._known is not None
            _check_same(self._known, parts, where)
        sums = []
        for members in self._members:
            values = _as_array([parts.get(x, 0.0) for x in members])
            if values.dtype.kind not in "biuf" or values.ndim != 1:
                shown = {x: parts.get(x, 0.0) for x in members}
                raise CostError(f"{where}: named costs must be numbers, got {shown!r}")
            sums.append(float(values.sum()))
        return sums[0] if len(sums) == 1 else np.array(sums, np.float32)


def named_parts(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the costs in an info that have names; they are none where the cost is a bare number."""
    cost = info.get("cost")
    if isinstance(cost, Mapping):
        return dict(cost)
    keys = (key for key in info if isinstance(key, str) and key.startswith(_PREFIX) and key != _SUM)
    return {key.removeprefix(_PREFIX): info[key] for key in keys}


def _as_array(cost: Any) -> np.ndarray:
    try:
        return np.asarray(cost)
    except ValueError:  # NumPy refuses rows of different lengths
        return np.asarray(cost, dtype=object)


def _check_same(names: Sequence[str], cost: Mapping[str, Any], where: str) -> None:
    """:raises CostError: the costs are not those of the names; a missing one would count as 0 otherwise."""
    if len(cost) == len(names) and all(name in cost for name in names):
        return
    kind = MissingCostError if any(name not in cost for name in names) else CostError
    raise kind(
        f"{where}: the named costs must be {', '.join(names)} as in the first step, got "
        f"{', '.join(map(str, cost)) or 'none'}"
    )
