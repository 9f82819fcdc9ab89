"""Checks of what an environment answers to a step and to a reset."""

from __future__ import annotations

from typing import Any


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
