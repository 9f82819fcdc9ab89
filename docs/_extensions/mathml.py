"""Writes formulas as MathML, which browsers draw without a script, a font or a network."""

from __future__ import annotations

import html
import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

LOGGER = logging.getLogger(__name__)
# What docutils does not know, and its like in MathML, whose brackets grow with what they hold.
REPLACED = (
    (re.compile(r"\\[bB]igg?(?![a-zA-Z])"), ""),
    (re.compile(r"\\iff(?![a-zA-Z])"), r"\\Leftrightarrow"),
    (re.compile(r"\\texttt(?![a-zA-Z])"), r"\\text"),
    # Text needs no escape.
    (re.compile(r"\\_"), "_"),
    # A subscript would stand below the letter and not beside it; the empty group makes it a group of two.
    (re.compile(r"\\(hat|bar) ?([A-Za-z])(?=_)"), r"{\\\1 \2{}}"),
)


def formula(node: nodes.math | nodes.math_block, *, as_block: bool = False) -> str:
    """The MathML of a formula; a formula that docutils cannot read gives a warning, and its LaTeX."""
    code = node.astext()
    for known, replacement in REPLACED:
        code = known.sub(replacement, code)
    try:
        return tex2mathml(code, as_block=as_block)
    except MathError as error:
        LOGGER.warning("the formula %s cannot be read: %s", code, error, location=node)
        return f"<code>{html.escape(code)}</code>"


def write_inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(formula(node))
    raise nodes.SkipNode


def write_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, which scrolls on a screen that is too narrow for it."""
    translator.body.append(f'<div class="math">{formula(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the renderer and choose it."""
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
