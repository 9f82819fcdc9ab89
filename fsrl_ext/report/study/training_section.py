"""The table of what the training did on the way to the final policies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fsrl_ext.report.statistics import mean_interval, share_text
from fsrl_ext.report.study import measures
from fsrl_ext.report.study.layout import Cell, Section
from fsrl_ext.report.study.result_sections import (
    Columns,
    Notes,
    cost_cell,
    cost_column,
    make_section,
    mean_cell,
)
from fsrl_ext.report.study.rows import Row
from fsrl_ext.report.study.run import StudyRun


def on_the_way(rows: Sequence[Row]) -> Section:
    """What the training cost, how its sampled episodes ended, and how soon a good policy was there."""
    notes = [text for _, text in training_notes()]
    return make_section("training", "Training", rows, training_columns(), notes)


def training_columns() -> Columns:
    """The columns about the training, by name."""
    return {
        "training return": _late_return,
        "training cost": _late_cost,
        "CVaR of cost": _tail,
        "above": _above,
        "violation": _violation,
        "reached": _reached,
        "steps to it": _steps_to,
        "time to it": _time_to,
        "time": _time,
    }


def training_notes() -> Notes:
    """What must be known to read :func:`training_columns`."""
    return [
        (
            ("training return", "training cost"),
            f"training return, cost: episodes with sampled actions in the last {measures.LATE:.0%} of the "
            "steps, mean over seeds.",
        ),
        (
            ("CVaR of cost",),
            f"CVaR of cost: mean of the {measures.TAIL:.0%} of the best policy's final episodes with the "
            "highest cost, mean over seeds.",
        ),
        (
            ("above",),
            "above: share of all training episodes in which a cost exceeded its limit, mean over seeds "
            "[95% Student t].",
        ),
        (
            ("violation",),
            "violation: sum of max(cost - limit, 0) over all training episodes, mean over seeds. "
            "≥: from mean costs of collect cycles, which give a lower bound. ≈: from a thinned curve.",
        ),
        (
            ("reached", "steps to it", "time to it"),
            f"reached: seeds with a feasible selection whose return is within {measures.REACHED:.0%} of the "
            "highest mean return of a row within its limits (same task, limit and step budget); mean steps "
            "and time to the first one over these seeds. Time grows evenly with the steps.",
        ),
        (("time",), "time: wall time of a run with its evaluations, mean over seeds."),
    ]


def _late_return(row: Row) -> Cell:
    late = [x for x in map(measures.late_training, row.runs) if x is not None]
    text, numbers = mean_cell([x[0] for x in late], "training_return", interval=False, digits=row.digits)
    return Cell(text, numbers)


def _late_cost(row: Row) -> Cell:
    late = [x for x in map(measures.late_training, row.runs) if x is not None]
    return cost_cell(row, [x[1] for x in late], "training_cost", interval=False)


def _tail(row: Row) -> Cell:
    tails = [x for x in (measures.cost_tail(run.best) for run in row.runs) if x is not None]
    # A mean over some of the seeds would stand beside means over all of them.
    return cost_cell(row, tails if len(tails) == len(row.runs) else [], "best_cost_cvar", interval=False)


def _above(row: Row) -> Cell:
    shares = [run.share_above for run in row.runs if run.share_above is not None and run.constrained]
    if not shares:
        return Cell("-", {"share_above": None})
    mean, ends = float(np.mean(shares)), mean_interval(shares, lowest=0.0, highest=1.0)
    low, high = ends or (None, None)
    return Cell(
        share_text(mean, ends), {"share_above": mean, "share_above_low": low, "share_above_high": high}
    )


_SIGNS = {"exact": "", "at least": "≥ ", "about": "≈ "}


def _violation(row: Row) -> Cell:
    if not any(run.constrained for run in row.runs):
        return Cell("-")
    sums = [measures.cumulative_violation(run) for run in row.runs]
    kind = next(k for k in ("about", "at least", "exact") if any(x.kind == k for x in sums))
    texts, numbers = [], {}
    for i, mean in enumerate(np.mean([x.sums for x in sums], axis=0).tolist()):
        numbers[f"{cost_column(row, 'violation', i)}_mean"] = mean
        texts.append("-" if math.isnan(mean) else f"{_SIGNS[kind]}{mean:,.0f}")
    return Cell(" / ".join(texts), {**numbers, "violation_kind": kind})


def _first_steps(row: Row) -> list[tuple[StudyRun, float]]:
    """The runs that reached the target, and the environment steps of the first selection that did."""
    if row.target is None:
        return []
    steps = ((run, measures.steps_to(run, row.target)) for run in row.runs)
    return [(run, x) for run, x in steps if x is not None]


def _reached(row: Row) -> Cell:
    if row.target is None:
        return Cell("-", {"reached": None, "target": None})
    count = len(_first_steps(row))
    return Cell(f"{count}/{len(row.runs)}", {"reached": count, "target": row.target})


def _steps_to(row: Row) -> Cell:
    first = [steps for _, steps in _first_steps(row)]
    if not first:
        return Cell("-", {"steps_to_it": None})
    return Cell(f"{np.mean(first):,.0f}", {"steps_to_it": float(np.mean(first))})


def _time_to(row: Row) -> Cell:
    return _seconds([measures.seconds_at(run, steps) for run, steps in _first_steps(row)], "seconds_to_it")


def _time(row: Row) -> Cell:
    return _seconds([run.seconds for run in row.runs], "seconds")


def _seconds(values: Iterable[float], name: str) -> Cell:
    seconds = list(values)
    if not seconds:
        return Cell("-", {name: None})
    mean = float(np.mean(seconds))
    text = f"{mean:.0f} s" if mean < 90 else f"{mean / 60:.0f} min" if mean < 5400 else f"{mean / 3600:.1f} h"
    return Cell(text, {name: mean})
