"""The library's exceptions, and the checks of settings and losses that several packages share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class NonFiniteError(FloatingPointError):
    """An environment, a network or a loss gave NaN or infinity.

    The error is raised before the value is stored and before it changes a parameter, so buffers, networks and
    optimisers stay usable.
    """


class CheckpointError(ValueError):
    """A checkpoint is damaged, is of another program, or does not fit the policy that loads it."""


class RunFolderError(ValueError):
    """A run folder is missing, is incomplete, is in use, or exists already."""


class RunStoppedError(RuntimeError):
    """A run cannot go on: a file cannot be written, or a process of the run has ended.

    What was saved before stays, and the run can be resumed.
    """


def check_fields(
    config: object,
    *,
    positive: Sequence[str] = (),
    non_negative: Sequence[str] = (),
    unit_interval: Sequence[str] = (),
    below_one: Sequence[str] = (),
    at_least_one: Sequence[str] = (),
    choices: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Checks a config's fields, which each rule lists by name.

    :param config: the object whose attributes are checked.
    :param positive: fields that must be > 0 and finite.
    :param non_negative: fields that must be >= 0.
    :param unit_interval: fields that must be in (0, 1].
    :param below_one: fields that must be in [0, 1).
    :param at_least_one: fields that must be whole numbers >= 1.
    :param choices: the allowed values of each field that has a list of them.
    :raises ValueError: for the first value that is not allowed; the message names the field, its value and
        what is allowed.
    """
    rules: list[tuple[Sequence[str], str, Callable[[Any], bool]]] = [
        (positive, "> 0", lambda x: x > 0 and math.isfinite(x)),
        (non_negative, ">= 0", lambda x: x >= 0),
        (unit_interval, "in (0, 1]", lambda x: 0 < x <= 1),
        (below_one, "in [0, 1)", lambda x: 0 <= x < 1),
        (at_least_one, "a whole number >= 1", lambda x: x >= 1 and x == int(x)),
    ]
    for names, allowed, is_allowed in rules:
        for name in names:
            value = getattr(config, name)
            if not is_allowed(value):
                raise ValueError(f"{name} must be {allowed}, got {value}")
    for name, values in (choices or {}).items():
        value = getattr(config, name)
        if value not in values:
            raise ValueError(f"{name} must be one of {tuple(values)}, got {value!r}")


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


def check_step(answer: Any) -> None:
    """Check that a step returned five values, the last of them a dictionary.

    :raises ValueError: it did not; the message says what it returned.
    """
    if isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], dict):
        return
    if not isinstance(answer, tuple):
        got = type(answer).__name__
    elif len(answer) == 4:
        got = "4 values, as in the old Gym (observation, reward, done, info): split done in two"
    elif len(answer) == 6:
        got = '6 values, as in safety_gymnasium, whose cost is a value of its own: put it in info["cost"]'
    elif len(answer) != 5:
        got = f"{len(answer)} values"
    else:
        got = f"an info of type {type(answer[4]).__name__}"
    raise ValueError(f"step must return (observation, reward, terminated, truncated, info: dict), got {got}")


def check_reset(answer: Any) -> None:
    """Check that a reset returned an observation and a dictionary.

    :raises ValueError: it did not; the message says what it returned.
    """
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict):
        return
    if not isinstance(answer, tuple):
        got = f"an observation without info, of type {type(answer).__name__}"
    elif len(answer) != 2:
        got = f"{len(answer)} values"
    else:
        got = f"an info of type {type(answer[1]).__name__}"
    raise ValueError(f"reset must return (observation, info: dict), got {got}")
