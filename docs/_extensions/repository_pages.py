"""Lets the pages link to each other and to files of the repository as on a code-hosting site.

- Some pages of the site are files outside of this folder, such as ``README.md``: :data:`PAGES`.
- A link to any other file or folder of the repository leads to a copy in the site, below ``repository/``.
- The navigation has the pages that ``index.md`` links to, in its order, under its headings.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
PAGES = {
    "readme": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changes": "CHANGELOG.md",
    "examples": "examples/README.md",
}
IMAGES = {".png", ".svg", ".gif"}
SCHEME = "repository:"
FOLDER = "repository"
LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the text of a page by one whose links Sphinx can follow."""
    path = ROOT / PAGES[docname] if docname in PAGES else Path(app.env.doc2path(docname))
    if docname in PAGES:
        source[0] = path.read_text(encoding="utf-8")
        app.env.note_dependency(str(path))

    def replaced(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / link[1]))
        return f"]({site_target(target) or link[1]}{link[2] or ''})"

    source[0] = LINK.sub(replaced, source[0])
    if docname == app.config.root_doc:
        source[0] += navigation(source[0])


def site_target(path: Path) -> str | None:
    """How a page of the site links to a path of the repository; ``None`` for one that does not exist."""
    if not path.exists() or not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT).as_posix()
    for docname, file in PAGES.items():
        if name == file:
            return f"/{docname}.md"
    if path.is_file() and (path.is_relative_to(DOCS) or path.suffix in IMAGES):
        return f"/{os.path.relpath(path, DOCS)}"
    return SCHEME + name


def navigation(index: str) -> str:
    """The hidden toctrees of a start page: one for each section with links, under its heading."""
    trees = []
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        pages = re.findall(r"^- \[([^\]]*)\]\(/([^)#]+)\.md\)", section, re.MULTILINE)
        entries = [f"{text} </{page}>" for text, page in pages]
        if pages:
            options = [":hidden:", ":titlesonly:", f":caption: {heading}"]
            trees.append("\n".join(["", "```{toctree}", *options, "", *entries, "```"]))
    return "\n".join(["", *trees, ""])


def lead_to_copies(app: Sphinx, doctree: nodes.document) -> None:
    """Let links to files of the repository lead to their copies, and note what has to be copied."""
    up = "../" * app.env.docname.count("/")
    for reference in doctree.findall(nodes.reference):
        address = reference.get("refuri", "")
        if not address.startswith(SCHEME):
            continue
        name, mark, fragment = address.removeprefix(SCHEME).partition("#")
        page = "/index.html" if (ROOT / name).is_dir() else ""
        reference["refuri"] = f"{up}{FOLDER}/{name}{page}{mark}{fragment}"
        app.env.metadata[app.env.docname].setdefault(FOLDER, set()).add(name)


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """Copy what the pages link to, folders with a list of their files."""
    if exception:
        return
    for name in sorted({name for data in app.env.metadata.values() for name in data.get(FOLDER, ())}):
        source, copy = ROOT / name, Path(app.outdir, FOLDER, name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            shutil.copyfile(source, copy)
            continue
        shutil.copytree(source, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
            list_files(folder, folder.relative_to(copy.parents[len(Path(name).parts) - 1]).as_posix())


def list_files(folder: Path, title: str) -> None:
    """Write the page ``index.html`` of a folder, which lists its files and folders."""
    rows = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):
        if path.name != "index.html":
            text = html.escape(path.name)
            link = f'{text}/index.html">{text}/' if path.is_dir() else f'{text}">{text}'
            rows.append(f'<li><a href="{link}</a></li>')
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><style>body { overflow-wrap: anywhere }</style>'
        f"<title>{html.escape(title)}</title></head><body><h1>{html.escape(title)}</h1><ul>"
        + "\n".join(rows)
        + "</ul></body></html>\n",
        encoding="utf-8",
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the functions with Sphinx."""
    app.connect("source-read", read_page)
    app.connect("doctree-read", lead_to_copies)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
