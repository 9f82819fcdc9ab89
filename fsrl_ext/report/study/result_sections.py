"""The two result tables: final policies, and what the training did on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from fsrl_ext.report.statistics import cost_interval, mean_interval, mean_text, share_interval, share_text
from fsrl_ext.report.study import measures
from fsrl_ext.report.study.layout import Cell, Section
from fsrl_ext.report.study.rows import WHICH, Row
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import value_text


def final_policies(rows: Sequence[Row]) -> Section:
    """Return and cost of the best feasible and of the last policies, and how many seeds are feasible."""
    columns: dict[str, Callable[[Row], Cell]] = {
        "best return": lambda row: _return(row, "best"),
        "best cost": lambda row: _cost(row, "best"),
        "best feasible": lambda row: _feasible(row, "best"),
        "last return": lambda row: _return(row, "last"),
        "last cost": lambda row: _cost(row, "last"),
        "last feasible": lambda row: _feasible(row, "last"),
        "collapsed": _collapsed,
    }
    notes = [
        "best: the policy with the highest return of those that were feasible in a selection, or the one "
        "with the least violation if none was. last: the policy at the end of the training.",
        "return, cost: mean over seeds of the final evaluation, deterministic episodes on seeds of their own "
        "[95% interval over seeds: Student t, cut at 0 for costs].",
        "feasible: seeds in which every mean cost plus one standard error is at most the limit "
        "[95% interval of their share: exact binomial].",
        f"collapsed: seeds whose last policy has less than {measures.COLLAPSED_BELOW:.0%} of its best "
        "policy's return.",
    ]
    if any(not row.within(which) for row in rows for which in WHICH):
        notes.append("!: the mean cost over the seeds is above a limit, and the return does not count.")
    if any(won for row in rows for won in row.winner.values()):
        notes.append(
            "bold (* in text): the highest mean return of the rows of one task, limit and step budget whose "
            "mean cost is within the limit."
        )
    return _section("policies", "Final policies", rows, columns, notes)


def on_the_way(rows: Sequence[Row]) -> Section:
    """What the training cost, how its sampled episodes ended, and how soon a good policy was there."""
    columns: dict[str, Callable[[Row], Cell]] = {
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
    notes = [
        f"training return, cost: episodes with sampled actions in the last {measures.LATE:.0%} of the steps, "
        "mean over seeds.",
        f"CVaR of cost: mean of the {measures.TAIL:.0%} of the best policy's final episodes with the highest "
        "cost, mean over seeds.",
        "above: share of all training episodes in which a cost exceeded its limit, mean over seeds "
        "[95% Student t].",
        "violation: sum of max(cost - limit, 0) over all training episodes, mean over seeds. "
        "≥: from mean costs of collect cycles, which give a lower bound. ≈: from a thinned curve.",
        f"reached: seeds with a feasible selection whose return is within {measures.REACHED:.0%} of the "
        "highest mean return of a row within its limits (same task, limit and step budget); mean steps and "
        "time to the first one over these seeds. Time grows evenly with the steps.",
        "time: wall time of a run with its evaluations, mean over seeds.",
    ]
    return _section("training", "Training", rows, columns, notes)


def _section(
    name: str,
    title: str,
    rows: Sequence[Row],
    columns: dict[str, Callable[[Row], Cell]],
    notes: Sequence[str],
) -> Section:
    fields = [key for key, _ in rows[0].group.by]
    header = ["task", *fields, "limit", "steps", "seeds", *columns]
    table = []
    for row in rows:
        seeds = len(row.runs)
        first = [
            Cell(row.group.task, {"task": row.group.task}),
            *(
                Cell("" if (key, value) == ("label", "none") else value, {key: value})
                for key, value in row.group.by
            ),
            Cell(value_text(row.group.limits), {"limit": value_text(row.group.limits)}),
            Cell(f"{row.group.steps:,}", {"steps": row.group.steps}),
            Cell(str(seeds), {"seeds": seeds}),
        ]
        table.append([*first, *(cell(row) for cell in columns.values())])
    return Section(name, title, header, table, left=range(1 + len(fields)), notes=notes)


def _return(row: Row, which: str) -> Cell:
    values = [getattr(run, which).return_mean for run in row.runs]
    text, numbers = _mean(values, f"{which}_return", digits=row.digits)
    mark = "" if row.within(which) else " !"
    numbers[f"{which}_within_limit"] = row.within(which)
    return Cell(text + mark, numbers, bold=row.winner[which])


def _cost(row: Row, which: str) -> Cell:
    return _per_cost(row, [getattr(run, which).cost_mean for run in row.runs], f"{which}_cost", interval=True)


def _per_cost(row: Row, values: Sequence[Sequence[float]], name: str, *, interval: bool) -> Cell:
    """The means over seeds of values ``[seeds, C]``, one after another for several costs."""
    texts: list[str] = []
    numbers: dict[str, Any] = {}
    for i, one in enumerate(zip(*values, strict=True)):
        label = name if len(row.group.limits) == 1 else f"{name}{i}"
        text, of_one = _mean(list(one), label, cost=True, interval=interval)
        texts.append(text)
        numbers |= of_one
    return Cell(" / ".join(texts) or "-", numbers)


def _mean(
    values: Sequence[float], name: str, *, cost: bool = False, interval: bool = True, digits: int = 1
) -> tuple[str, dict[str, Any]]:
    """The mean of finite values with its interval, as a text and as numbers by column name."""
    mean = float(np.mean(values)) if len(values) else math.nan
    if not math.isfinite(mean):
        return "-", {f"{name}_mean": None}
    ends = (cost_interval if cost else mean_interval)(values) if interval else None
    numbers: dict[str, Any] = {f"{name}_mean": mean}
    if interval:
        numbers[f"{name}_low"], numbers[f"{name}_high"] = ends or (None, None)
    return mean_text(mean, ends, digits), numbers


def _feasible(row: Row, which: str) -> Cell:
    if not any(run.constrained for run in row.runs):
        return Cell("-", {f"{which}_feasible": None})
    count, total = sum(getattr(run, which).feasible for run in row.runs), len(row.runs)
    low, high = share_interval(count, total)
    return Cell(f"{count}/{total} [{low:.0%}, {high:.0%}]", {f"{which}_feasible": count})


def _collapsed(row: Row) -> Cell:
    count = sum(map(measures.has_collapsed, row.runs))
    return Cell(f"{count}/{len(row.runs)}", {"collapsed": count})


def _late_return(row: Row) -> Cell:
    late = [x for x in map(measures.late_training, row.runs) if x is not None]
    text, numbers = _mean([x[0] for x in late], "training_return", interval=False, digits=row.digits)
    return Cell(text, numbers)


def _late_cost(row: Row) -> Cell:
    late = [x for x in map(measures.late_training, row.runs) if x is not None]
    return _per_cost(row, [x[1] for x in late], "training_cost", interval=False)


def _tail(row: Row) -> Cell:
    tails = [x for x in (measures.cost_tail(run.best) for run in row.runs) if x is not None]
    # A mean over some of the seeds would stand beside means over all of them.
    return _per_cost(row, tails if len(tails) == len(row.runs) else [], "best_cost_cvar", interval=False)


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
        name = "violation_mean" if len(row.group.limits) == 1 else f"violation{i}_mean"
        numbers[name] = mean
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
