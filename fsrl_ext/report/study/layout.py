"""Sections of a table, and how they are written as text, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fsrl_ext.report.table import text_table

Format = Literal["text", "markdown", "csv", "latex"]

FORMATS: tuple[Format, ...] = ("text", "markdown", "csv", "latex")


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    :param text: as people read it.
    :param numbers: column names and values of a CSV file; NaN and ``None`` are empty there.
    :param bold: whether the cell stands out.
    """

    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    bold: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a report: one table and what must be known to read it.

    :param title: empty for a table without one.
    :param rows: none for a section that only has notes.
    :param left: columns that are aligned to the left.
    :param notes: sentences below the table.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: Sequence[int] = (0, 1)
    notes: Sequence[str] = ()


def write_sections(sections: Sequence[Section], form: Format, *, bare: bool = False) -> str:
    """The sections as one text with a final newline.

    A CSV file has one table, so only the first section is written there.

    :param bare: whether titles and notes are left out.
    """
    if bare:
        sections = [replace(x, title="", notes=()) for x in sections]
    if form == "csv":
        return _csv(sections[0])
    write = {"text": _text, "markdown": _markdown, "latex": _latex}[form]
    return "\n".join(write(section) for section in sections)


def _text(section: Section) -> str:
    notes = "".join(f"{textwrap.fill(note, 110, subsequent_indent='  ')}\n" for note in section.notes)
    title = f"{section.title}\n\n" if section.title else ""
    if not section.rows:
        return f"{title}{notes}"
    rows = [[f"*{cell.text}" if cell.bold else cell.text for cell in row] for row in section.rows]
    table = text_table(section.header, rows, left=section.left)
    return f"{title}{table}\n" + (f"\n{notes}" if notes else "")


def _markdown(section: Section) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    rules = [":--" if i in section.left else "--:" for i in range(len(section.header))]
    lines = [f"### {section.title}", ""] if section.title else []
    if section.rows:
        lines += [_row(map(cell, section.header)), _row(rules)]
    for row in section.rows:
        lines.append(_row(f"**{cell(x.text)}**" if x.bold else cell(x.text) for x in row))
    lines += ["", *(f"- {note}" for note in section.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _csv(section: Section) -> str:
    names = dict.fromkeys(name for row in section.rows for cell in row for name in cell.numbers)
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(names)
    for row in section.rows:
        numbers = {name: value for cell in row for name, value in cell.numbers.items()}
        table.writerow(_csv_value(numbers.get(name)) for name in names)
    return file.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if value != value else f"{value:.10g}"
    return "" if value is None else value


_LATEX = {
    **{x: rf"\{x}" for x in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


def _latex(section: Section) -> str:
    notes = [f"% {line}" for note in section.notes for line in note.splitlines()]
    title = [f"% {section.title}"] if section.title else []
    if not section.rows:
        return "\n".join([*title, *notes, ""])
    columns = "".join("l" if i in section.left else "r" for i in range(len(section.header)))
    lines = [*title, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(map(_tex, section.header)) + r" \\", r"\midrule"]
    for row in section.rows:
        cells = (rf"\textbf{{{_tex(x.text)}}}" if x.bold else _tex(x.text) for x in row)
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", *notes]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    escaped = "".join(_LATEX.get(x, x) for x in text)
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escaped)  # a minus, where a hyphen would be set
