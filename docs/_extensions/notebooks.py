"""Executes the pages below ``notebooks/`` as the site is built: outputs and figures follow their blocks.

The Python blocks of a page run in order in one namespace. What a block prints follows the block, and so do
the figures that it draws with pyplot, as in Jupyter. Beside the page stands the same as a Jupyter notebook. A
block that raises an error is a warning, which fails ``make docs``.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import traceback
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

FOLDER = "notebooks/"
LOGGER = logging.getLogger(__name__)
BLOCK = re.compile(r"(^```python\n(.*?)^```\n)", re.DOTALL | re.MULTILINE)
VERSION = {"nbformat": 4, "nbformat_minor": 5}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def execute(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the text of a notebook's page by one that has the outputs, and keep the notebook."""
    if not docname.startswith(FOLDER):
        return
    text, *blocks = BLOCK.split(source[0])
    page, cells, namespace = [text], [markdown_cell(text)], {"__name__": "__main__"}
    for whole, code, text in zip(blocks[::3], blocks[1::3], blocks[2::3], strict=True):
        printed, figures = run(code, namespace, docname)
        page += [whole, shown(printed, figures), text]
        cells += [code_cell(code, printed, figures), markdown_cell(text)]
    name = docname.removeprefix(FOLDER)
    page.append(f'\n<p><a href="{name}.ipynb" download>Download this page as a Jupyter notebook</a></p>\n')
    source[0] = "".join(page)
    numbered = [{"id": f"cell-{i}", **cell} for i, cell in enumerate(cells)]
    notebook = {**VERSION, "metadata": KERNEL, "cells": numbered}
    app.env.metadata[docname][FOLDER] = json.dumps(notebook, indent=1)


def run(code: str, namespace: dict[str, Any], docname: str) -> tuple[str, list[str]]:
    """Run a block; return what it printed, and its figures as PNG files in base64."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, docname, "exec"), namespace)
        except Exception:
            LOGGER.warning("a block of the notebook fails: %s", traceback.format_exc(), location=docname)
    figures = []
    for number in pyplot.get_fignums():
        file = io.BytesIO()
        pyplot.figure(number).savefig(file, format="png", dpi=110)
        figures.append(base64.b64encode(file.getvalue()).decode())
    pyplot.close("all")
    return printed.getvalue(), figures


def shown(printed: str, figures: list[str]) -> str:
    """Return the outputs of a block as a page has them."""
    text = f"\n```text\n{printed.rstrip()}\n```\n" if printed.strip() else ""
    images = [f'<img alt="figure drawn by the block above" src="data:image/png;base64,{x}">' for x in figures]
    return text + "".join(f"\n<p>{image}</p>\n" for image in images)


def markdown_cell(text: str) -> dict[str, Any]:
    """Return a cell of text."""
    return {"cell_type": "markdown", "metadata": {}, "source": text.strip()}


def code_cell(code: str, printed: str, figures: list[str]) -> dict[str, Any]:
    """Return a cell of code with its outputs."""
    outputs: list[dict[str, Any]] = []
    if printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed})
    for data in figures:
        outputs.append({"output_type": "display_data", "metadata": {}, "data": {"image/png": data}})
    cell = {"cell_type": "code", "metadata": {}, "execution_count": None, "source": code.rstrip()}
    return {**cell, "outputs": outputs}


def write_notebooks(app: Sphinx, exception: Exception | None) -> None:
    """Write the Jupyter notebooks beside their pages."""
    if exception is None:
        for docname, data in app.env.metadata.items():
            if FOLDER in data:
                Path(app.outdir, f"{docname}.ipynb").write_text(data[FOLDER], encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the functions with Sphinx."""
    app.connect("source-read", execute)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
