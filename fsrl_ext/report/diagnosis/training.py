"""What a run logged of its constraint, by quarters of the training so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.progress import read_columns

QUARTERS = 4

_NUMBERS = (
    ("multiplier", "constraint/multiplier"),
    ("surplus over the limit", "constraint/surplus"),
    ("cost of training episodes", "constraint/episode_cost"),
    ("level of the critic", "constraint/critic_level"),
    ("estimate that the constraint uses", "constraint/measured_cost"),
    ("expected of the updated policy", "constraint/expected_cost"),
    ("extra margin", "constraint/extra_margin"),
    ("extra share", "constraint/extra_share"),
    ("unexplained share of the critic", "critic/unexplained_cost"),
    ("played per predicted change", "constraint/played_per_predicted"),
)
"""Label and column, without ``update/`` and the number of the cost, of what is logged for each cost."""

_ESTEP = ("slack", "active", "infeasible", "saturated", "flat")
_CASES = ("inactive", "active", "recovery", "degenerate")
_SHARES = (
    *((f"E-step {name}", f"estep/{name}") for name in _ESTEP),
    *((f"step {name}", f"step/case_{name}") for name in _CASES),
    ("E-step KL over its bound", "estep/kl_relative"),
    ("M-step KL of the mean over its bound", "mstep/kl_mean_relative"),
    ("M-step KL of the scale over its bound", "mstep/kl_scale_relative"),
    ("M-step KL over its bound", "mstep/kl_relative"),
    ("step KL over its bound", "step/kl_relative"),
    ("policy's standard deviation", "policy/std"),
    ("policy's entropy", "policy/entropy"),
)


def row_label(label: str, names: Sequence[str], i: int) -> str:
    """Return the label of a row about one of the costs: ``multiplier``, or ``multiplier 1`` of several.

    :param names: of the costs in a report, ``cost``, or ``cost 0, cost 1, ...``.
    """
    return label if len(names) == 1 else f"{label} {_key(names[i])}"


def _key(name: str) -> str:
    """Return what tells a cost apart in columns, from its name in a report."""
    return name.removeprefix("cost ")


def training_numbers(
    folder: Path, names: Sequence[str], *, caps: Sequence[float | None]
) -> dict[str, Any] | None:
    """Return what ``progress.csv`` says of the constraint, by quarters of the steps so far.

    :param folder: a run folder.
    :param names: of the costs in a report, ``[C]``.
    :param caps: ``[C]`` largest value of each multiplier; ``None`` without one.
    :return: ``rows``: by label the means of the four quarters and of the last tenth; ``at_cap``: by cost the
        share of the rows of the last quarter whose multiplier is within 1% of its cap; ``steps``: of the last
        row. ``None`` if nothing is logged.
    :raises RunFolderError: if the file is damaged.
    """
    ends = [""] if len(names) == 1 else [f"_{_key(name)}" for name in names]
    columns = [
        (row_label(label, names, i), f"{column}{end}")
        for label, column in _NUMBERS
        for i, end in enumerate(ends)
    ]
    columns += _SHARES
    table = read_columns(RunFolder(folder).progress, ["env_step", *(f"update/{x}" for _, x in columns)])
    steps, values = table[:, 0], table[:, 1:]
    if not np.isfinite(values).any():
        return None
    last = float(np.nanmax(steps))
    quarter = np.clip(np.ceil(QUARTERS * steps / last).astype(int) - 1, 0, QUARTERS - 1)
    rows: dict[str, Any] = {}
    for (label, _), column in zip(columns, values.T, strict=True):
        if np.isfinite(column).any():
            rows[label] = {
                "quarters": [_mean(column[quarter == i]) for i in range(QUARTERS)],
                "last_tenth": _mean(column[steps > 0.9 * last]),
            }
    at_cap = []
    for end, cap in zip(ends, caps, strict=True):
        place = [name for _, name in columns].index(f"constraint/multiplier{end}")
        logged = values[quarter == QUARTERS - 1, place]
        logged = logged[np.isfinite(logged)]
        at_cap.append(None if cap is None or not len(logged) else float((logged >= 0.99 * cap).mean()))
    return {"rows": rows, "at_cap": at_cap, "steps": last}


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan
