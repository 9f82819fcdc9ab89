"""Scores that count an infeasible policy as lost, and their statistics over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fsrl_ext.report.statistics import FEW
from fsrl_ext.report.study import aggregate
from fsrl_ext.report.study.layout import Cell, Section
from fsrl_ext.report.study.published import best_published
from fsrl_ext.report.study.rows import mean_return, within
from fsrl_ext.report.study.select import Group, first_ones, value_text

Normalise = Literal["best", "published"]

Which = Literal["best", "last"]

THRESHOLDS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""The scores of the performance profile in the table."""


@dataclass(frozen=True)
class ScoreTable:
    """The scores of several policies on the same problems; a problem is a task with its limits.

    :param problems: names of the problems.
    :param scores: for each policy one array ``[seeds]`` per problem.
    :param notes: what was left out, and why.
    """

    problems: tuple[str, ...]
    scores: Mapping[str, tuple[np.ndarray, ...]]
    notes: tuple[str, ...]


def score_table(
    groups: Sequence[Group], *, which: Which = "best", normalise: Normalise = "best"
) -> ScoreTable:
    """Scores the policies of every run.

    The score of a run is 0 if its policy is infeasible in the final evaluation or its return is negative, and
    its return over the unit of its problem otherwise. The unit is the highest mean return over seeds of a row
    whose mean cost is within the limits, or the highest published return within its own limit. Only problems
    that every policy has runs of are scored, so that all policies are judged on the same ones.

    :param which: the best feasible or the last policies.
    :param normalise: by the best row here, or by published results.
    """
    names = _names(groups)
    problems: dict[str, dict[str, Group]] = {}
    for member, name in zip(groups, names, strict=True):
        problems.setdefault(_problem(member), {})[name] = member
    policies = list(dict.fromkeys(names))
    kept, notes = [], []
    units = {}
    for problem, members in problems.items():
        lacking = [name for name in policies if name not in members]
        if lacking:
            notes.append(f"{problem} is not scored, without runs of {first_ones(lacking, 3)}.")
            continue
        unit = _unit(list(members.values()), which, normalise)
        if unit is None or unit <= 0:
            what = (
                "no positive return within a limit is published"
                if normalise == "published"
                else ("no return of a feasible policy is positive")
            )
            notes.append(f"{problem} is not scored: {what}.")
            continue
        kept.append(problem)
        units[problem] = unit
    scores = {
        name: tuple(_scores(problems[problem][name], which, units[problem]) for problem in kept)
        for name in policies
    }
    if len(notes) > 4:
        notes = [*notes[:3], f"{len(notes) - 3} more tasks are not scored for such reasons."]
    return ScoreTable(tuple(kept), scores, tuple(notes))


def _names(groups: Sequence[Group]) -> list[str]:
    """The name of each group, with its steps where one name has several step budgets on a task."""
    seen: dict[tuple[str, str], set[int]] = {}
    for member in groups:
        seen.setdefault((member.name, _problem(member)), set()).add(member.steps)
    several = {name for (name, _), steps in seen.items() if len(steps) > 1}
    return [f"{x.name} {x.steps:,} steps" if x.name in several else x.name for x in groups]


def _problem(group: Group) -> str:
    return f"{group.task} (limit {value_text(group.limits)})"


def _unit(groups: Sequence[Group], which: Which, normalise: Normalise) -> float | None:
    """The return that a score of 1 stands for; ``None`` if no policy of any run is feasible or published."""
    if normalise == "published":
        return best_published(groups[0].task)
    means = [mean_return(x, which) for x in groups if within(x, which)]
    if means:
        return max(means)
    judged = [getattr(run, which) for x in groups for run in x.runs]
    feasible = [x.return_mean for x in judged if x.feasible]
    # Where every policy is infeasible, all scores are 0, whatever the unit.
    return max(feasible, default=1.0)


def _scores(group: Group, which: Which, unit: float) -> np.ndarray:
    judged = [getattr(run, which) for run in group.runs]
    return np.array([max(x.return_mean, 0.0) / unit if x.feasible else 0.0 for x in judged])


def score_sections(table: ScoreTable, *, which: Which, normalise: Normalise) -> list[Section]:
    """IQM and performance profile of every policy, and the probabilities of improvement between them."""
    if not table.problems:
        reasons = table.notes or ("there are no runs.",)
        return [Section("scores", "Scores over tasks: none", [], [], notes=reasons)]
    header = ["policy", "tasks", "runs", "IQM of the score", *(f"> {x:g}" for x in THRESHOLDS)]
    rows = []
    for name, scores in table.scores.items():
        value, ends = aggregate.iqm(scores), aggregate.iqm_interval(scores)
        shares = aggregate.profile(scores, np.array(THRESHOLDS))
        low, high = ends or (None, None)
        rows.append(
            [
                Cell(name, {"policy": name}),
                Cell(str(len(scores)), {"tasks": len(scores)}),
                Cell(str(sum(map(len, scores))), {"runs": sum(map(len, scores))}),
                Cell(_text(value, ends), {"iqm": value, "iqm_low": low, "iqm_high": high}),
                *(
                    Cell(f"{share:.0%}", {f"above_{x:g}": float(share)})
                    for x, share in zip(THRESHOLDS, shares, strict=True)
                ),
            ]
        )
    unit = (
        "the highest published return within its own limit"
        if normalise == "published"
        else "the highest mean return over seeds of a row whose mean cost is within the limit"
    )
    notes = [
        f"score of a run: the return of its {which} policy in the final evaluation over {unit}; 0 if that "
        "policy is infeasible (a mean cost plus one standard error above its limit) or its return is "
        "negative.",
        "IQM: mean of the scores without the lowest and the highest quarter of all runs. Interval: 95%, "
        f"percentile bootstrap stratified by task, {aggregate.RESAMPLES:,} resamples.",
        "> x: performance profile, the share of the runs with a score above x.",
        f"scored: {', '.join(table.problems)}.",
        *table.notes,
        *_too_few(table),
    ]
    sections = [Section("scores", "Scores over tasks", header, rows, left=(0,), notes=notes)]
    if len(table.scores) > 1:
        sections.append(_improvements(table))
    return sections


def _too_few(table: ScoreTable) -> list[str]:
    few = sorted({len(x) for scores in table.scores.values() for x in scores if len(x) < FEW})
    if not few:
        return []
    return [
        f"warning: fewer than {FEW} seeds per task ({', '.join(map(str, few))}). Bootstrap intervals are "
        "then too narrow, and a single seed has none."
    ]


def _improvements(table: ScoreTable) -> Section:
    names = list(table.scores)
    rows = []
    for one in names:
        cells = [Cell(one, {"policy": one})]
        for other in names:
            if one == other:
                cells.append(Cell("", {f"over {other}": None}))
                continue
            pair = table.scores[one], table.scores[other]
            value, ends = aggregate.improvement(*pair), aggregate.improvement_interval(*pair)
            low, high = ends or (None, None)
            numbers = {f"over {other}": value, f"over {other} low": low, f"over {other} high": high}
            cells.append(Cell(_text(value, ends), numbers))
        rows.append(cells)
    notes = [
        "Probability that a run of the row's policy has a higher score than a run of the column's policy, "
        "mean over tasks; ties count half. 95% intervals as above."
    ]
    header = ["policy", *(f"over {x}" for x in names)]
    return Section("improvement", "Probability of improvement", header, rows, left=(0,), notes=notes)


def _text(value: float, ends: tuple[float, float] | None) -> str:
    return f"{value:.2f}" if ends is None else f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
