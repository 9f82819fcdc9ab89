"""The upper parts of the page: what was compared, filters, results, and the places of the curves."""

from __future__ import annotations

from collections.abc import Sequence

from fsrl_ext.report.page.document import facts
from fsrl_ext.report.page.html import attributes, escape, notes, part, section_table
from fsrl_ext.report.page.parts import figures
from fsrl_ext.report.page.selection import Selection
from fsrl_ext.report.page.thin import points_per_curve
from fsrl_ext.report.page.verdict import result_tables, verdicts
from fsrl_ext.report.study.scores import score_sections, score_table
from fsrl_ext.report.study.select import value_text
from fsrl_ext.report.study.tables import cautions

SEED_NOTE = (
    "Thick lines are means over seeds with their 95% Student t interval: training episodes are averaged "
    "over 2% of the axis, seeds are interpolated to 200 common places, and a line is drawn where every seed "
    "has a value. Wider intervals are cut by the frame. Thin lines are the seeds as they were logged; of a "
    "seed with more than {most} points, the lowest and the highest of each of {parts} equal parts are drawn, "
    "so no peak is lost. The files of the runs hold every point."
)

_LINKS = (
    ("results", "Results"),
    ("curves", "Curves"),
    ("points", "Return against cost"),
    ("films", "Films"),
    ("diagnostics", "Diagnostics"),
    ("configs", "Configs"),
    ("runs", "Runs"),
)


def head(chosen: Selection, title: str, *, films: bool) -> str:
    """Title, facts and links.

    :param films: whether the page has a part with films.
    """
    runs = chosen.runs
    counts = sorted({len(x.runs) for x in chosen.groups})
    per_row = "-".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    left_out = f", {len(chosen.skipped)} left out" if chosen.skipped else ""
    rows = [
        ("policies", ", ".join(dict.fromkeys(run.policy for run in runs))),
        ("tasks", ", ".join(panel.title for panel in chosen.panels)),
        ("cost limits", ", ".join(dict.fromkeys(value_text(run.limits) for run in runs))),
        ("steps per run", ", ".join(dict.fromkeys(f"{x.steps:,}" for x in chosen.groups))),
        ("seeds", f"{_ranges(sorted({run.seed for run in runs}))} ({per_row} per row)"),
        ("runs", f"{len(runs)} finished{left_out}"),
    ]
    if chosen.fields != ["policy"]:
        rows.append(("rows differ in", ", ".join(["task, limit, steps", *chosen.fields])))
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in _LINKS if films or name != "films")
    return f"<header><h1>{escape(title)}</h1>{facts(rows)}<nav>{links}</nav></header>"


def filters(chosen: Selection) -> str:
    """Buttons that hide and show tasks and rows; they need the page's script and are hidden without it."""
    label = "Policy" if chosen.fields == ["policy"] else "Row"
    tasks = [panel.title for panel in chosen.panels]
    chips = ""
    for kind, name, values in (("task", "Task", tasks), ("series", label, list(chosen.colours))):
        buttons = ""
        for value in values:
            own = attributes({"aria-pressed": "true", "data-filter": kind, "data-value": value})
            swatch = f'<span class="swatch" data-swatch="{escape(value)}"></span>' if kind == "series" else ""
            buttons += f'<button type="button"{own}>{swatch}{escape(value)}</button>'
        chips += f'<div class="chips"><span>{name}</span>{buttons}</div>'
    return (
        f'<details class="filter needs-script" open><summary>Filter</summary>{chips}'
        '<p class="hint">A click hides or shows; a double click shows one alone. '
        '<button type="button" id="show-all">Show all</button></p></details>'
    )


def results(chosen: Selection) -> str:
    """The verdicts, and the tables of ``fsrl-ext table``, rows within the limit first."""
    items = "".join(
        f"<li{attributes({'data-task': x.task})}><b>{escape(x.task)}</b> ({escape(x.problem)}): "
        f"{escape(x.text)}</li>"
        for x in verdicts(chosen.rows, chosen.name)
    )
    own = [
        {
            **chosen.marks(row.group),
            "class": "within" if row.within("best") else "above",
        }
        for row in chosen.rows
    ]
    final, training = result_tables(chosen.rows)
    text = f'<ul class="verdicts">{items}</ul>{section_table(final, own, final.header.index("verdict"))}'
    text += notes([*final.notes, *cautions(chosen.groups)], "How to read the columns")
    text += f"<h3>What the training took</h3>{section_table(training, own)}"
    text += notes(training.notes, "How to read the columns")
    if len(chosen.rows) > 1:
        for section in score_sections(score_table(chosen.groups), which="best", normalise="best"):
            text += f"<h3>{escape(section.title)}</h3>{section_table(section) if section.rows else ''}"
            text += notes(section.notes, "How to read the table")
    return part("results", "Results", "", text)


_NO_SCRIPT = '<noscript><p class="warning">The figures need JavaScript; the tables do not.</p></noscript>'

_CURVES = (
    "Return, and below it the cost with its limit (dotted), over environment steps. Drag to zoom, "
    "double-click to go back. Where costs reach five limits, their axis is logarithmic above twice the limit."
)

_POINTS = (
    "The final evaluation: small marks are seeds, large ones are means over "
    "seeds with 95% intervals. Hollow marks are infeasible. Left of the dotted limit is allowed; "
    "higher is better."
)


def curves(chosen: Selection) -> str:
    """The controls and places of the curves."""
    most = points_per_curve(chosen.num_curves)
    controls = (
        '<div class="controls needs-script"><label>Episodes <select id="episodes">'
        '<option value="training">training (sampled actions)</option>'
        '<option value="deterministic">selections (deterministic)</option>'
        '<option value="both">both</option></select></label>'
        '<label><input type="checkbox" id="seeds"> every seed</label>'
        '<label><input type="checkbox" id="linear"> linear cost axis</label></div>'
    )
    how = f'<p class="hint">{escape(SEED_NOTE.format(most=most, parts=most // 2))}</p>'
    places = figures("curves", chosen.panels, "Return and cost over steps")
    return part("curves", "Curves", _CURVES, f"{_NO_SCRIPT}{controls}{_legend(chosen)}{places}{how}")


def points(chosen: Selection) -> str:
    """The control and places of return against cost."""
    control = (
        '<div class="controls needs-script"><label>Policies <select id="which">'
        '<option value="best">best feasible</option><option value="last">last</option></select></label></div>'
    )
    places = figures("points", chosen.panels, "Return against cost")
    return part("points", "Return against cost", _POINTS, f"{_NO_SCRIPT}{control}{_legend(chosen)}{places}")


def _legend(chosen: Selection) -> str:
    """The colour of each name, without those that a filter hides."""
    entries = "".join(
        f"<li{attributes({'data-series': name})}>"
        f'<span class="swatch" data-swatch="{escape(name)}"></span>{escape(name)}</li>'
        for name in chosen.colours
    )
    return f'<ul class="legend">{entries}</ul>'


def _ranges(values: Sequence[int]) -> str:
    """Sorted numbers as ``0-4, 7``."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(str(x[0]) if len(x) == 1 else f"{x[0]}-{x[-1]}" for x in parts)
