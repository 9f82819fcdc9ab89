"""The file itself: styles, scripts and data inlined, and a policy that forbids everything else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from fsrl_ext.report.page.html import escape, script_data

_SCRIPTS = ("axis.js", "figures.js", "page.js")


def document(title: str, body: str, data: Mapping[str, Any]) -> str:
    """A complete HTML document that needs no other file and no network.

    The content security policy allows the page's own two scripts by their hashes, styles, and pictures and
    films in the file; the browser runs no other script and asks no server for anything.

    :param title: a text.
    :param body: HTML of the page's content.
    :param data: what the page's script draws.
    """
    import plotly.offline  # takes half a second

    own = "\n".join(["(() => {", '"use strict";', *map(_asset, _SCRIPTS), "})();"])
    scripts = [plotly.offline.get_plotlyjs(), own]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src data:; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{_asset('page.css')}</style>",
            "</head>",
            "<body>",
            body,
            f'<script type="application/json" id="data">{script_data(data)}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body>",
            "</html>",
            "",
        ]
    )


def _asset(name: str) -> str:
    return (resources.files("fsrl_ext.report.page") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A list of names and texts."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in rows)
    return f'<dl class="facts">{items}</dl>'
