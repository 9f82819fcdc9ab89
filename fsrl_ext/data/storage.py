"""The checks and conversions of a transition on its way into a cost-aware buffer.

Dimensions: ``R`` transitions, ``C`` costs.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from tianshou.data import Batch
from tianshou.data.types import RolloutBatchProtocol

from fsrl_ext.data.batches import raw_batch
from fsrl_ext.data.errors import check_finite

# Tianshou stores `info` as well. The collector reads the cost out of it; the rest only takes time and memory.
STORED_KEYS = (
    "obs",
    "act",
    "rew",
    "terminated",
    "truncated",
    "done",
    "obs_next",
    "policy",
    "cost",
)


def storable(
    batch: RolloutBatchProtocol, num_costs: int, buffer_ids: Sequence[int] | np.ndarray | None
) -> RolloutBatchProtocol:
    """Make a new batch of the entries that are stored, checked and in the stored types.

    :param batch: entries ``[R, ...]``, without the leading axis if ``buffer_ids`` is None; it is not changed.
    :param buffer_ids: ``[R]`` indices of the environments, for the messages.
    :return: ``cost [R, C]``, observations and actions as float32; the reward keeps Tianshou's float64.
    :raises ValueError: ``cost`` is missing or has the wrong shape.
    :raises NonFiniteStepError: a field holds NaN or infinity.
    """
    keys = set(batch.get_keys())
    if "cost" not in keys:
        raise ValueError(
            "the batch has no `cost`: collect with fsrl_ext.data.CostCollector (Tianshou's "
            "Collector and AsyncCollector do not read info['cost']) or set batch.cost"
        )
    if "policy" in keys and isinstance(batch.policy, Batch) and not batch.policy.get_keys():
        keys.remove("policy")
    rows = () if buffer_ids is None else (len(buffer_ids),)
    stored = {
        key: batch[key] if key == "rew" else _narrow(batch[key]) for key in sorted(keys - {"info", "cost"})
    }
    stored["cost"] = _cost_array(batch.cost, rows, num_costs)
    for key in ("obs", "act", "rew", "cost", "obs_next"):
        if key in stored:
            check_finite(key, stored[key], buffer_ids)
    return cast(RolloutBatchProtocol, raw_batch(**stored))


def _cost_array(cost: Any, rows: tuple[int, ...], num_costs: int) -> np.ndarray:
    with np.errstate(over="ignore"):  # the check that follows names what has become infinite
        array = np.asarray(cost).astype(np.float32)
    if num_costs == 1 and array.shape == rows:
        array = array[..., None]
    if array.shape != (*rows, num_costs):
        raise ValueError(
            f"batch.cost must have shape {[*rows, num_costs]} (num_costs={num_costs}), "
            f"got {list(array.shape)}"
        )
    return array


def _narrow(value: Any) -> Any:
    """Turn float64 into float32, also inside nested batches, and leave everything else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype != np.float64:
            return value
        with np.errstate(over="ignore"):  # the check that follows names what has become infinite
            return value.astype(np.float32)
    if isinstance(value, Batch):
        return Batch({key: _narrow(entry) for key, entry in value.items()})
    return value
