"""Checks that losses and other numbers of a gradient step are finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsrl_ext.errors.exceptions import NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(loss: Tensor, name: str) -> None:
    """Checks that a loss is finite, before any optimiser uses it.

    :param loss: 0-dim; reading it waits for its device.
    :param name: what the error calls the loss.
    :raises NonFiniteError: if the loss is NaN or infinite.
    """
    check_all_finite(loss.reshape(1), [name])


def check_all_finite(values: Tensor, names: Sequence[str]) -> None:
    """Checks that all values are finite, before any optimiser uses them.

    :param values: ``[len(names)]``; reading them waits for their device, once.
    :param names: what the error calls each value.
    :raises NonFiniteError: for the first value that is NaN or infinite.
    """
    for name, value in zip(names, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise NonFiniteError(f"{name} is {value} but must be finite; the step was not taken")
