"""The figures of a study, from runs to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fsrl_ext.report.study.collect import read_study
from fsrl_ext.report.study.curve_figure import Axis, Episodes, draw_curves
from fsrl_ext.report.study.grid import WINDOW, Statistic
from fsrl_ext.report.study.panels import make_panels, sweeps
from fsrl_ext.report.study.point_figures import draw_costs, draw_frontier, draw_scatter
from fsrl_ext.report.study.profile_figure import draw_profiles
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.scores import Which, score_table
from fsrl_ext.report.study.select import default_fields, field_name, group, where
from fsrl_ext.report.study.style import colours

Kind = Literal["curves", "costs", "scatter", "frontier", "profiles"]

KINDS: tuple[Kind, ...] = ("curves", "costs", "scatter", "frontier", "profiles")

SUFFIXES = (".png", ".pdf", ".svg")


def study_plot(
    paths: Sequence[str | os.PathLike[str]],
    out: Path,
    *,
    kind: Kind = "curves",
    conditions: Sequence[str] = (),
    by: Sequence[str] = (),
    facet: Sequence[str] = ("task",),
    x: Axis = "steps",
    statistic: Statistic = "mean",
    episodes: Episodes = "training",
    which: Which = "best",
    skip_damaged: bool = False,
) -> tuple[str, tuple[str, ...]]:
    """Draws the finished runs below some folders.

    :param out: the file to write, which ends in ``.png``, ``.pdf`` or ``.svg``.
    :param conditions: as ``paths`` and ``by``, see :func:`fsrl_ext.report.study.tables.study_table`.
    :param facet: config fields that tell panels apart; tasks always do.
    :param x: what curves are over.
    :param statistic: what curves show of the seeds.
    :param episodes: which episodes curves show.
    :param which: the policies of the other figures.
    :return: what the figure shows, for its caption, and one line for each run that was left out.
    :raises ValueError: for conditions, fields and files that cannot be used, and if there is nothing to draw.
    :raises RunFolderError: as for :func:`fsrl_ext.report.study.tables.study_table`.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"out must end in {' or '.join(SUFFIXES)}, got {out}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    study = read_study(paths, skip_damaged=skip_damaged)
    runs = where(study.runs, conditions)
    fields = [field_name(name, runs, "--by") for name in by] or default_fields(runs)
    facets = [field_name(name, runs, "--facet") for name in facet]
    if kind == "profiles":
        return _profiles(runs, fields, which, out), study.skipped
    panels = make_panels(runs, fields, facets)
    names: dict[str, set[str]] = {}
    for panel in panels:
        curves = sweeps(panel) if kind == "frontier" else {k: [x] for k, x in panel.groups.items()}
        for name, members in curves.items():
            names.setdefault(name, set()).update(run.policy for x in members for run in x.runs)
    if kind == "curves":
        draw_curves(panels, colours(names), out, x=x, statistic=statistic, episodes=episodes)
        return _curve_caption(statistic, x, runs), study.skipped
    draw = {"costs": draw_costs, "scatter": draw_scatter, "frontier": draw_frontier}[kind]
    draw(panels, colours(names), out, which=which)
    return _POINT_CAPTIONS[kind].format(which=which), study.skipped


_MEANS = "means over seeds with 95% t intervals"

_POINT_CAPTIONS = {
    "costs": "Costs of the {which} policies in the final evaluation. Points: seeds. Boxes: quartiles and "
    "median, from five seeds on.",
    "scatter": f"The {{which}} policies in the final evaluation. Small marks: seeds. Large marks: {_MEANS}. "
    "Hollow: infeasible.",
    "frontier": f"The {{which}} policies in the final evaluation. Marks: {_MEANS}, with their limits. "
    "Hollow: above the limit.",
}


def _curve_caption(statistic: Statistic, x: Axis, runs: Sequence[StudyRun]) -> str:
    what = {
        "mean": "mean over seeds, 95% Student t interval",
        "iqm": "IQM over seeds, 95% bootstrap interval",
    }[statistic]
    text = (
        f"{what}; training episodes are averaged over {WINDOW:.0%} of the axis, and seeds are interpolated "
        "to a common grid and drawn where every seed has a value."
    )
    if x == "time":
        text += " Time grows evenly with the steps."
    if x == "cost" and any(run.training.thinned for run in runs):
        text += " Cumulative costs of result files are estimated from thinned curves."
    return text


def _profiles(runs: Sequence[StudyRun], fields: Sequence[str], which: Which, out: Path) -> str:
    """Draws performance profiles; returns the caption.

    :raises ValueError: if no task can be scored.
    """
    table = score_table(group(runs, fields), which=which)
    if not table.problems:
        raise ValueError(f"no task can be scored: {' '.join(table.notes)}")
    policies: dict[str, set[str]] = {}
    for member in group(runs, fields):
        for name in table.scores:
            if name == member.name or name.startswith(f"{member.name} "):
                policies.setdefault(name, set()).update(run.policy for run in member.runs)
    draw_profiles(table, colours(policies), out)
    return (
        f"Performance profiles of the {which} policies over {', '.join(table.problems)}; an infeasible "
        "policy has the score 0; bands: 95% bootstrap intervals stratified by task."
    )
