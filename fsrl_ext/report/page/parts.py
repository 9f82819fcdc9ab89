"""The parts of the page below the results: diagnostics, films, configs, runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fsrl_ext.report.page.details import Origin
from fsrl_ext.report.page.films import Rollout
from fsrl_ext.report.page.html import attributes, escape, part, plain_table
from fsrl_ext.report.page.selection import Selection
from fsrl_ext.report.page.settings import common_settings, different_settings, versions_table
from fsrl_ext.report.study.panels import Panel
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import value_text


def figures(kind: str, panels: Sequence[Panel], label: str) -> str:
    """Empty places of figures, one for each panel, which the script fills."""
    places = "".join(
        f'<figure class="panel"{attributes({"data-task": panel.title})}>'
        f"<figcaption>{escape(panel.title)}</figcaption>"
        f'<div class="plot" data-kind="{kind}" data-panel="{number}" role="img"'
        f' aria-label="{escape(f"{label}, {panel.title}")}"></div></figure>'
        for number, panel in enumerate(panels)
    )
    return f'<div class="panels">{places}</div>'


_DIAGNOSTICS = (
    "How the learning went, for the policies that log it. Lines are means over seeds; bands span "
    "everything that was logged near a place, by any seed."
)

_NOTHING = (
    "No diagnostics: the runs have no progress.csv (result files have none), or the policy logs none of "
    "these numbers."
)


def diagnostics(chosen: Selection, data: Sequence[Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """A part that opens for each task, with the figures of each row.

    :param data: of the figures, by panel and group.
    """
    text = ""
    for number, panel in enumerate(chosen.panels):
        rows = ""
        for place, member in enumerate(panel.groups.values()):
            name = escape(chosen.name(member))
            drawn = data[number][place]
            inside = "".join(
                f'<figure class="panel"><figcaption>{escape(figure["title"])}</figcaption>'
                f'<div class="plot" data-kind="diagnostic" data-panel="{number}" data-group="{place}"'
                f' data-figure="{i}" role="img" aria-label="{escape(figure["title"])}, {name}"></div>'
                f'<p class="hint">{escape(figure["text"])}</p></figure>'
                for i, figure in enumerate(drawn)
            )
            rows += (
                f"<section{attributes(chosen.marks(member))}>"
                f'<h4><span class="swatch" data-swatch="{name}"></span>{name}</h4>'
                f'<div class="panels small">{inside or _hint(_NOTHING)}</div></section>'
            )
        own = attributes({"data-task": panel.title}) + (" open" if number == 0 else "")
        text += f"<details{own}><summary>{escape(panel.title)}</summary>{rows}</details>"
    return part("diagnostics", "Diagnostics", _DIAGNOSTICS, text)


def _hint(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>'


_FILMS = "The best policy of one seed of each row: the highest return among the seeds with a feasible one."


def films(chosen: Selection, rollouts: Sequence[Rollout]) -> str:
    """The films, and a line for each row without one."""
    shown = missing = ""
    for rollout in rollouts:
        member = rollout.group
        own = attributes(chosen.marks(member))
        title = f"{member.task}: {chosen.name(member)}"
        if rollout.source:
            shown += (
                f'<figure class="panel"{own}><figcaption>{escape(title)}</figcaption>'
                f'<video controls loop muted playsinline preload="metadata" src="{rollout.source}"></video>'
                f"{_hint(f'{rollout.text}; limit {value_text(member.limits)}')}</figure>"
            )
        else:
            missing += f"<li{own}>{escape(f'{title}: {rollout.text}')}</li>"
    text = f'<div class="panels small">{shown}</div>' if shown else ""
    return part("films", "Films", _FILMS, text + (f"<ul>{missing}</ul>" if missing else ""))


_COLUMNS = (
    "Task, limit, steps and seed are in the tables above. A dash: the policy has no such setting. Several "
    "values in one cell: the runs of that column differ."
)


def configs(chosen: Selection, origins: Sequence[Origin]) -> str:
    """What differs between the configs, what all share, the versions, and the command of each run.

    :param origins: of the runs, in their order.
    """
    header, differing, partial = different_settings(chosen.groups)
    text = "<h3>What differs</h3>"
    if differing:
        text += _hint(_COLUMNS) + plain_table(header, differing)
    else:
        text += "<p>Where runs have the same settings, they differ in task, limit, steps and seed alone.</p>"
    if partial:
        text += f"<details><summary>{len(partial)} settings that only some of the policies have</summary>"
        text += f"{plain_table(header, partial)}</details>"
    common = [[name, value] for name, value in common_settings(chosen.runs).items()]
    text += f"<h3>What all runs share</h3><details><summary>{len(common)} settings</summary>"
    text += f"{plain_table(['setting', 'value'], common)}</details>"
    versions = versions_table(origins)
    text += "<h3>Versions</h3>"
    text += plain_table(["package", "version"], versions) if versions else "<p>No run noted its versions.</p>"
    by_run = dict(zip(map(id, chosen.runs), origins, strict=True))
    commands = [
        [member.task, chosen.name(member), str(run.seed), by_run[id(run)].command or "not noted"]
        for member in chosen.groups
        for run in member.runs
    ]
    text += f"<h3>Commands</h3><details><summary>What made each of the {len(commands)} runs</summary>"
    table = plain_table(["task", "row", "seed", "command"], commands)
    return part(
        "configs", "Configs, versions, commands", "", f'{text}<div class="commands">{table}</div></details>'
    )


_RUN_COLUMNS = [
    *("task", "row", "seed", "best return", "best cost", "best feasible", "last return", "last cost"),
    *("last feasible", "steps", "time", "place"),
]


def runs(chosen: Selection) -> str:
    """A table with a line for each run, and the runs that were left out."""
    rows = [(member, run) for member in chosen.groups for run in member.runs]
    cells = [[member.task, chosen.name(member), *_numbers(run)] for member, run in rows]
    table = plain_table(_RUN_COLUMNS, cells, [chosen.marks(member) for member, _ in rows])
    text = f"<details open><summary>Each of the {len(rows)} runs</summary>{table}</details>"
    if chosen.skipped:
        items = "".join(f"<li>{escape(line)}</li>" for line in chosen.skipped)
        text += f"<h3>Left out</h3><ul>{items}</ul>"
    return part("runs", "Runs", "", text)


def _numbers(run: StudyRun) -> list[str]:
    judged = []
    for one in (run.best, run.last):
        verdict = ("yes" if one.feasible else "no") if run.constrained else "-"
        judged += [f"{one.return_mean:.1f}", " / ".join(f"{x:.1f}" for x in one.cost_mean) or "-", verdict]
    return [str(run.seed), *judged, f"{run.env_step:,}", f"{run.seconds / 60:,.1f} min", str(run.path)]
