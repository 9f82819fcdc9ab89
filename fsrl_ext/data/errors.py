"""Errors of collecting, and the check that experience is finite."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tianshou.data import Batch

from fsrl_ext.errors import NonFiniteError


class NonFiniteStepError(NonFiniteError):
    """An environment or a policy produced NaN or infinity, and nothing of that step was stored.

    After this error the environments are in an unknown state. Call ``collector.reset_env()``, which also
    closes the open episodes in the buffer, before collecting again.

    :param field: ``"obs"``, ``"obs_next"``, ``"act"``, ``"rew"`` or ``"cost"``.
    :param env_id: index of the environment (= of the sub-buffer), None if unknown.
    :param step: environment steps the collector had taken before, None outside a collector.
    """

    def __init__(self, field: str, env_id: int | None = None, step: int | None = None) -> None:
        super().__init__(field, env_id, step)
        self.field, self.env_id, self.step = field, env_id, step

    def __str__(self) -> str:
        where = "" if self.env_id is None else f" of environment {self.env_id}"
        when = "" if self.step is None else f" after {self.step} collected steps"
        return f"{self.field}{where} is not finite (NaN or infinity){when}"


class ProcessEndedError(RuntimeError):
    """A process in which an environment or a collector runs has ended.

    A reset of the environment starts a new process for it; a collector that collects in another process has
    to be made anew.
    """


def nonfinite_row(value: Any) -> int | None:
    """Return the index of the first row with NaN or infinity along the first axis, None if all are finite.

    :param value: array ``[B, ...]``, tensor, or a (nested) Batch, dict or object array of those.
    """
    # Arrays are tested for first: isinstance of a Batch is slow, and this runs several times per step.
    if not isinstance(value, np.ndarray):
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        elif isinstance(value, Batch | dict):
            rows = [row for row in map(nonfinite_row, value.values()) if row is not None]
            return min(rows, default=None)
    array = np.asanyarray(value)
    if array.dtype == object:  # of observations with different shapes, or of dictionaries
        entries = enumerate(np.atleast_1d(array))
        return next((i for i, item in entries if _is_bad(item)), None)
    if array.dtype.kind not in "fc" or np.isfinite(array).all():
        return None
    return int(np.argwhere(~np.isfinite(np.atleast_1d(array)))[0, 0])


def _is_bad(item: Any) -> bool:
    containers = (float, np.ndarray, np.generic, torch.Tensor, list, tuple, dict, Batch)
    return isinstance(item, containers) and nonfinite_row(item) is not None


def check_finite(
    field: str, value: Any, env_ids: Sequence[int] | np.ndarray | None, step: int | None = None
) -> None:
    """Raise :class:`NonFiniteStepError` naming the field and the environment of the first bad row.

    :param value: ``[B, ...]``, row ``i`` belonging to environment ``env_ids[i]``.
    """
    row = nonfinite_row(value)
    if row is not None:
        raise NonFiniteStepError(field, None if env_ids is None else int(env_ids[row]), step)
