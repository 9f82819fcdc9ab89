"""A table of columns that the user chooses, and of training episodes at the steps that the user names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

import numpy as np

from fsrl_ext.report.study import measures
from fsrl_ext.report.study.layout import Cell, Section
from fsrl_ext.report.study.result_sections import (
    Columns,
    Notes,
    cost_cell,
    make_section,
    mean_cell,
    policy_columns,
    policy_notes,
)
from fsrl_ext.report.study.rows import Row
from fsrl_ext.report.study.training_section import training_columns, training_notes

WINDOW = 20_000
"""Environment steps that a mean over training episodes is over, if none are named."""


def chosen_columns(
    rows: Sequence[Row], names: Sequence[str], *, at: Sequence[int] = (), window: int = WINDOW
) -> Section:
    """The named columns, and the training episodes before some environment steps.

    :param names: of columns of the policies, the training and the selections; ``-`` may stand for a space.
    :param at: the steps.
    :param window: the episodes of a step are those that end after ``step - window``.
    :raises ValueError: for unknown names, and for steps and windows below 1.
    """
    for option, values in (("--at", at), ("--window", (window,))):
        if any(x < 1 for x in values):
            raise ValueError(f"{option} must be >= 1, got {min(values)}")
    there = {**policy_columns(), **training_columns(), **_selection_columns()}
    chosen = {name: there[name] for name in (_known(x, list(there)) for x in names)}
    notes = [
        text
        for columns, text in [*policy_notes(rows), *training_notes(), *_selection_notes()]
        if not chosen.keys().isdisjoint(columns)
    ]
    if at:
        chosen |= {f"at {step:,}": _training_at(step, window) for step in at}
        notes.append(
            f"at: return and cost of the training episodes with sampled actions in the {window:,} steps "
            "before, mean over seeds."
        )
    return make_section("chosen", "Runs", rows, chosen, notes)


def _known(text: str, names: Sequence[str]) -> str:
    """:raises ValueError: if no column has the name."""
    keys = {name.lower().replace(" ", "-"): name for name in names}
    key = text.strip().lower().replace(" ", "-")
    if key not in keys:
        close = difflib.get_close_matches(key, keys, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(keys)}"
        raise ValueError(f"--columns must name columns, got {text!r}; {hint}")
    return keys[key]


def _selection_columns() -> Columns:
    return {
        "selected as feasible": _selected_as_feasible,
        "feasible selections": _feasible_selections,
        "first feasible": _first_feasible,
    }


def _selection_notes() -> Notes:
    return [
        (
            ("selected as feasible",),
            "selected as feasible: seeds whose best policy was feasible in its selection, which plays other "
            "episodes than the final evaluation.",
        ),
        (
            ("feasible selections",),
            "feasible selections: of the selections of all seeds, which play deterministic episodes.",
        ),
        (
            ("first feasible",),
            "first feasible: mean environment steps of the first feasible selection over the seeds that have "
            "one.",
        ),
    ]


def _selected_as_feasible(row: Row) -> Cell:
    if not any(run.constrained for run in row.runs):
        return Cell("-", {"selected_as_feasible": None})
    points = [run.selections.feasible[run.selections.steps == run.best.env_step] for run in row.runs]
    count = sum(bool(x.any()) for x in points)
    return Cell(f"{count}/{len(points)}", {"selected_as_feasible": count})


def _feasible_selections(row: Row) -> Cell:
    count = sum(int(run.selections.feasible.sum()) for run in row.runs)
    total = sum(len(run.selections.feasible) for run in row.runs)
    return Cell(f"{count}/{total}", {"feasible_selections": count, "selections": total})


def _first_feasible(row: Row) -> Cell:
    first = [run.selections.steps[run.selections.feasible] for run in row.runs]
    steps = [float(x[0]) for x in first if len(x)]
    if not steps:
        return Cell("-", {"first_feasible": None})
    return Cell(f"{np.mean(steps):,.0f}", {"first_feasible": float(np.mean(steps))})


def _training_at(step: int, window: int) -> Callable[[Row], Cell]:
    """A column of the training episodes that ended after ``step - window`` and up to ``step``."""

    def cell(row: Row) -> Cell:
        parts = [measures.training_between(run, step - window, step) for run in row.runs]
        means = [x for x in parts if x is not None]
        if len(means) < len(parts):  # a mean over some of the seeds would stand beside means over all of them
            return Cell("-", {f"return_at_{step}_mean": None})
        text, numbers = mean_cell(
            [x[0] for x in means], f"return_at_{step}", interval=False, digits=row.digits
        )
        cost = cost_cell(row, [x[1] for x in means], f"cost_at_{step}", interval=False)
        return Cell(f"{text}, {cost.text}", {**numbers, **cost.numbers})

    return cell
