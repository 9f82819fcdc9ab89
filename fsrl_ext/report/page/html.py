"""HTML text: escaping, tables, and data for scripts.

Whatever comes from a run (a label, a command, a value of a config) passes through :func:`escape` or
:func:`script_data`, because it may hold markup.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fsrl_ext.report.study.layout import Cell, Section

_INTERVAL = re.compile(r"^(?P<value>[^\[\]]+?) (?P<ends>\[[^\[\]]+\])(?P<mark> !)?$")


def escape(value: Any) -> str:
    """The value as text of HTML, in an element or in an attribute between double quotes."""
    return html.escape(str(value), quote=True)


def script_data(data: Any) -> str:
    """JSON that may stand in a ``<script>`` element: no text in it can end the element or open another."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def attributes(values: Mapping[str, Any]) -> str:
    """The attributes of an element, with a space before each."""
    return "".join(f' {name}="{escape(value)}"' for name, value in values.items())


def section_table(section: Section, rows: Sequence[Mapping[str, Any]] = (), badges: int | None = None) -> str:
    """The table of a section.

    :param rows: attributes of each row; none for rows without.
    :param badges: the column whose cells stand out by their background; none if not given.
    """
    left = set(section.left)
    classes = [' class="left"' if i in left else "" for i in range(len(section.header))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for kind, name in zip(classes, section.header, strict=True)
    )
    body = []
    for number, row in enumerate(section.rows):
        own = attributes(rows[number]) if rows else ""
        texts = [
            f'<span class="badge">{_cell(cell)}</span>' if i == badges else _cell(cell)
            for i, cell in enumerate(row)
        ]
        cells = "".join(f"<td{kind}>{text}</td>" for kind, text in zip(classes, texts, strict=True))
        body.append(f"<tr{own}>{cells}</tr>")
    return scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>")


def scrolling(table: str) -> str:
    """A frame in which a table that is too wide scrolls; the keyboard reaches it, too."""
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _cell(cell: Cell) -> str:
    """The text of a cell; the interval in brackets is set smaller than its mean."""
    parts = _INTERVAL.match(cell.text)
    if parts is None:
        text = escape(cell.text)
    else:
        mark = escape(parts["mark"] or "")
        text = f"{escape(parts['value'])}{mark} <small>{escape(parts['ends'])}</small>"
    return f"<strong>{text}</strong>" if cell.bold else text


def plain_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marks: Sequence[Mapping[str, Any]] = ()
) -> str:
    """A table of texts, aligned to the left; the first cell of a row is its heading.

    :param marks: attributes of each row; none for rows without.
    """
    head = "".join(f'<th scope="col" class="left">{escape(name)}</th>' for name in header)
    body = ""
    for number, (first, *others) in enumerate(rows):
        own = attributes(marks[number]) if marks else ""
        cells = "".join(f'<td class="left">{escape(cell)}</td>' for cell in others)
        body += f'<tr{own}><th scope="row" class="left">{escape(first)}</th>{cells}</tr>'
    return scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def notes(lines: Sequence[str], title: str) -> str:
    """Warnings as they are, and the other notes of a table in a part that opens."""
    warnings = [line for line in lines if line.startswith("warning: ")]
    others = [line for line in lines if line not in warnings]
    text = "".join(
        f'<p class="warning">Warning: {escape(line.removeprefix("warning: "))}</p>' for line in warnings
    )
    if others:
        items = "".join(f"<li>{escape(line)}</li>" for line in others)
        text += f"<details><summary>{escape(title)}</summary><ul>{items}</ul></details>"
    return text


def part(name: str, title: str, lead: str, content: str) -> str:
    """A part of the page under a heading.

    :param name: by which links find it.
    :param lead: a text about what follows; may be empty.
    :param content: HTML.
    """
    text = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{text}{content}</section>'
