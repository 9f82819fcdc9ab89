"""The table of a study: its sections, from runs to text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from fsrl_ext.report.statistics import FEW
from fsrl_ext.report.study.chosen_section import WINDOW, chosen_columns
from fsrl_ext.report.study.collect import read_study
from fsrl_ext.report.study.layout import FORMATS, Format, Section, write_sections
from fsrl_ext.report.study.published import beside_published
from fsrl_ext.report.study.result_sections import final_policies
from fsrl_ext.report.study.rows import make_rows
from fsrl_ext.report.study.scores import Normalise, Which, score_sections, score_table
from fsrl_ext.report.study.select import (
    Group,
    default_fields,
    field_name,
    group,
    missing_seeds,
    mixed_settings,
    repeated_seeds,
    where,
)
from fsrl_ext.report.study.training_section import on_the_way

Part = Literal["policies", "training", "scores", "improvement", "published"]

PARTS: tuple[Part, ...] = ("policies", "training", "scores", "improvement", "published")


def study_table(
    paths: Sequence[str | os.PathLike[str]],
    *,
    conditions: Sequence[str] = (),
    by: Sequence[str] = (),
    form: Format = "text",
    parts: Sequence[Part] = (),
    columns: Sequence[str] = (),
    at: Sequence[int] = (),
    window: int = WINDOW,
    bare: bool = False,
    score: Which = "best",
    normalise: Normalise = "best",
    published: bool = False,
    skip_damaged: bool = False,
) -> tuple[str, tuple[str, ...]]:
    """Compares the finished runs below some folders.

    :param paths: run folders, folders of run folders, and result files ``seed<k>.json``.
    :param conditions: ``field=value[,value]``, see :func:`fsrl_ext.report.study.select.where`.
    :param by: config fields that tell rows apart, beside task, limits and step budget; the policy, and the
        label where there are labels, if none are named.
    :param form: how the text is written.
    :param parts: which sections; all if none are named. A CSV file holds one, that of the policies if none is
        named.
    :param columns: the columns of one table of its own, in place of the sections, see
        :func:`fsrl_ext.report.study.chosen_section.chosen_columns`.
    :param at: environment steps; that table then has the training episodes before them, too.
    :param window: number of environment steps that these episodes are from.
    :param bare: whether the text has the tables alone, without titles and notes.
    :param score: which policies the scores over tasks are about.
    :param normalise: what a score of 1 stands for.
    :param published: whether to put published results beside the rows.
    :param skip_damaged: whether damaged files are left out and named.
    :return: the text, and one line for each run that was left out.
    :raises ValueError: for conditions, fields, parts and formats that cannot be used.
    :raises RunFolderError: if a path has no runs, no run is finished or selected, or a file is damaged.
    """
    for name, value, allowed in (("form", form, FORMATS), *(("parts", part, PARTS) for part in parts)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if form == "csv" and len(parts) > 1:
        raise ValueError(f"a CSV file holds one part, got {', '.join(parts)}")
    if parts and (columns or at):
        raise ValueError("--columns and --at make a table of their own; they do not go with --part")
    if "published" in parts:
        published = True
    study = read_study(paths, skip_damaged=skip_damaged)
    runs = where(study.runs, conditions)
    fields = [field_name(x, runs, "--by") for x in by] or default_fields(runs)
    groups = group(runs, fields)
    rows = make_rows(groups)
    if columns or at:
        section = chosen_columns(rows, columns, at=at, window=window)
        section = replace(section, notes=[*section.notes, *cautions(groups)])
        return write_sections([section], form, bare=bare), study.skipped
    wanted = list(parts) or (["policies"] if form == "csv" else list(PARTS))
    sections = []
    if "policies" in wanted:
        section = final_policies(rows)
        sections.append(replace(section, notes=[*section.notes, *cautions(groups)]))
    if "training" in wanted:
        sections.append(on_the_way(rows))
    if "scores" in wanted or "improvement" in wanted:
        sections += _scores(groups, wanted, score, normalise)
    if published and "published" in wanted:
        sections.append(beside_published(rows))
    return write_sections(sections, form, bare=bare), study.skipped


def _scores(
    groups: Sequence[Group], wanted: Sequence[str], score: Which, normalise: Normalise
) -> list[Section]:
    """The sections about scores that are wanted.

    :raises ValueError: if only such sections are wanted, and no task can be scored.
    """
    table = score_table(groups, which=score, normalise=normalise)
    if not table.problems and set(wanted) <= {"scores", "improvement"}:
        raise ValueError(f"no task can be scored: {' '.join(table.notes)}")
    if len(table.scores) < 2 and set(wanted) == {"improvement"}:
        raise ValueError("improvement compares policies, and there is one alone")
    return [x for x in score_sections(table, which=score, normalise=normalise) if x.name in wanted]


def cautions(groups: Sequence[Group]) -> list[str]:
    """What weakens the rows: few seeds, missing and repeated ones, and settings that differ within a row."""
    few = sorted({len(x.runs) for x in groups if len(x.runs) < FEW})
    lines = [*missing_seeds(groups), *repeated_seeds(groups), *mixed_settings(groups)]
    if few:
        lines.append(
            f"fewer than {FEW} seeds ({', '.join(map(str, few))}): the interval of a mean holds its 95% only "
            "if the values are about normal, so it can miss rare costs; a single seed has no interval."
        )
    return [f"warning: {line}" for line in lines]
