"""The page of a study, from run folders to one HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fsrl_ext import __version__
from fsrl_ext.errors import RunFolderError
from fsrl_ext.report.files import replacing
from fsrl_ext.report.page import overview, parts
from fsrl_ext.report.page.curves import panel_data, styles
from fsrl_ext.report.page.details import Origin, read_logged, read_origin
from fsrl_ext.report.page.diagnostics import diagnostic_columns, diagnostic_data
from fsrl_ext.report.page.document import document
from fsrl_ext.report.page.films import Film, film_groups
from fsrl_ext.report.page.html import escape
from fsrl_ext.report.page.selection import Selection
from fsrl_ext.report.page.thin import points_per_curve
from fsrl_ext.report.study.collect import read_study
from fsrl_ext.report.study.grid import Points
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import default_fields, field_name, first_ones, where

MOST_BYTES = 15_000_000
"""Size that films may bring a page to."""

_CAPTION_BYTES = 1_000


def study_page(
    paths: Sequence[str | os.PathLike[str]],
    out: Path,
    *,
    conditions: Sequence[str] = (),
    by: Sequence[str] = (),
    title: str | None = None,
    command: str = "",
    film: Film | None = None,
    skip_damaged: bool = False,
) -> tuple[str, ...]:
    """Writes the page of the finished runs below some folders.

    :param paths: run folders, folders of run folders, and result files ``seed<k>.json``.
    :param out: the file to write, which is replaced in one move.
    :param conditions: as ``by``, see :func:`fsrl_ext.report.study.tables.study_table`.
    :param title: of the page; what was compared, if not given.
    :param command: what the page names as its own command.
    :param film: films a run's best policy; without it nothing is drawn.
    :param skip_damaged: whether damaged files are left out and named.
    :return: one line for each run that was left out.
    :raises ValueError: for conditions and fields that cannot be used.
    :raises RunFolderError: if a path has no runs, no run is finished or selected, or a file is damaged.
    """
    study = read_study(paths, skip_damaged=skip_damaged)
    runs = where(study.runs, conditions)
    fields = [field_name(x, runs, "--by") for x in by] or default_fields(runs)
    origins, logged, damaged = _read_details(runs, skip_damaged=skip_damaged)
    chosen = Selection([x for x in runs if id(x) in origins], fields, [*study.skipped, *damaged])
    title = title or chosen.title
    diagnostics = [
        [diagnostic_data(x, [logged[id(run)] for run in x.runs]) for x in panel.groups.values()]
        for panel in chosen.panels
    ]
    data = {
        "styles": styles(chosen.colours),
        "panels": panel_data(chosen.panels, points_per_curve(chosen.num_curves)),
        "diagnostics": diagnostics,
    }
    before = [
        "<main>",
        overview.head(chosen, title, films=film is not None),
        overview.filters(chosen),
        overview.results(chosen),
        overview.curves(chosen),
        overview.points(chosen),
    ]
    after = [
        parts.diagnostics(chosen, diagnostics),
        parts.configs(chosen, [origins[id(run)] for run in chosen.runs]),
        parts.runs(chosen),
        _footer(command),
        "</main>",
    ]
    films = []
    if film is not None:
        size = len(_bytes(document(title, "".join([*before, *after]), data)))
        room = MOST_BYTES - size - _CAPTION_BYTES * len(chosen.groups)
        films = [parts.films(chosen, film_groups(chosen.groups, film, room))]
    text = document(title, "".join([*before, *films, *after]), data)
    with replacing(out) as file:
        file.write(_bytes(text))
    return tuple(chosen.skipped)


def _read_details(
    runs: Sequence[StudyRun], *, skip_damaged: bool
) -> tuple[dict[int, Origin], dict[int, dict[str, Points]], list[str]]:
    """Reads what made the runs and what they logged.

    :return: both by the runs' ``id``, and a line for each damaged run, which is in neither.
    :raises RunFolderError: if a file is damaged and must not be skipped, or if all are.
    """
    origins, logged, damaged = {}, {}, []
    for run in runs:
        try:
            origin = read_origin(run)
            logged[id(run)] = read_logged(run, diagnostic_columns(len(run.limits), run.cost_names))
        except RunFolderError as error:
            if not skip_damaged:
                raise RunFolderError(f"{error}; --skip-damaged goes on without it") from error
            damaged.append(str(error))
            continue
        origins[id(run)] = origin
    if not origins:
        raise RunFolderError(f"every selected run is damaged: {first_ones(damaged, 1)}")
    return origins, logged, damaged


def _bytes(text: str) -> bytes:
    """The text in UTF-8; a path that is no UTF-8 itself has question marks."""
    return text.encode(errors="replace")


def _footer(command: str) -> str:
    made = f" Command: <code>{escape(command)}</code>" if command else ""
    return f"<footer><p>Written by fsrl_ext {__version__}. The file needs no network.{made}</p></footer>"
