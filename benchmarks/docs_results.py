"""Remakes every table and figure of the documentation that comes from committed result files.

    python benchmarks/docs_results.py            # remakes them all
    python benchmarks/docs_results.py --check    # changes nothing, and says what differs
    python benchmarks/docs_results.py docs/known_optimum.md

A page names the command of a table or a figure in a comment, and what the command makes stands below it:

    <!-- fsrl-ext table benchmarks/results/SafetyCarRun-v0 --columns best-return --format markdown --bare -->
    | task | ...
    <!-- end -->

The command is ``fsrl-ext ...`` or ``python benchmarks/... .py ...``; it runs in the root of the repository,
in this process. What it prints is what stands between the comments, in a fenced block if the page has one
there. The lines of a figure (a command with ``--out FILE.png``) show the file, and the page's author writes
them. A command of a
console block that reads ``benchmarks/results`` is checked, too: what it prints must be what the block shows,
where a line ``...`` stands for any lines, and its figure is remade.

Texts must be equal. Of two pictures at most ``MOST_PIXELS`` may differ, because other versions of the
drawing library move lines by a pixel. The exit code of ``--check`` is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsrl_ext.cli import main as fsrl_ext_main

ROOT = Path(__file__).resolve().parents[1]
MOST_PIXELS = 0.001
"""Largest share of the pixels of a figure that may differ."""
FENCE = "```\n"
"""Stands around text that is no Markdown, where the page has it so."""
VISIBLE = 0.1
"""Difference of a colour, of 1, from which on a pixel counts as different."""

_MADE = re.compile(
    r"^<!-- (?P<command>(?:fsrl-ext|python benchmarks/)[^\n]*?) -->\n(?P<content>.*?)^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)
_CONSOLE = re.compile(r"^```console\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
_RESULTS = re.compile(r"fsrl-ext (table|plot) benchmarks/results")


@dataclass(frozen=True)
class Part:
    """A table or figure of a page.

    :param content: what the page shows of the command's output.
    :param exact: whether ``content`` is all of the output; else lines ``...`` stand for any lines.
    """

    page: Path
    command: str
    content: str
    exact: bool

    @property
    def picture(self) -> Path | None:
        """The figure that the command writes, relative to the root of the repository."""
        arguments = shlex.split(self.command)
        return Path(arguments[arguments.index("--out") + 1]) if "--out" in arguments else None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, help="only these pages (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing, and say what differs")
    options = parser.parse_args(argv)
    different = [line for page in options.pages or pages() for line in remake(page, check=options.check)]
    print("\n".join(different) or "every table and figure is that of the result files")
    return int(bool(different) and options.check)


def pages() -> list[Path]:
    """The README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def remake(page: Path, *, check: bool) -> list[str]:
    """Puts what the commands of a page make into the page and its figures.

    :param check: whether nothing is written.
    :return: one text for each table and figure that differed.
    """
    different = []
    text = page.read_text()
    for part in parts(page, text):
        where = f"{page.resolve().relative_to(ROOT)}: {part.command}"
        with tempfile.TemporaryDirectory() as folder:
            command = shlex.split(part.command)
            if part.picture is not None:
                drawn = Path(folder) / part.picture.name
                command[command.index("--out") + 1] = str(drawn)
                printed = run(command).replace(str(drawn), str(part.picture))
                share = different_pixels(drawn, ROOT / part.picture)
                if share > MOST_PIXELS:
                    different.append(f"{where}\n  {part.picture}: {share:.1%} of the pixels differ")
                    if not check:
                        shutil.copyfile(drawn, ROOT / part.picture)
                if part.exact:
                    if part.picture.name not in part.content:
                        different.append(f"{where}\n  {part.picture} is not shown between the comments")
                    continue
            else:
                printed = run(command)
        if part.content.startswith(FENCE):
            printed = f"{FENCE}{printed}{FENCE}"
        if not shows(part, printed):
            lines = difflib.unified_diff(
                part.content.splitlines(), printed.splitlines(), "page", "result files", "", "", 0, ""
            )
            different.append("\n  ".join([where, *lines]))
            if not check and part.exact:
                old = f"<!-- {part.command} -->\n{part.content}<!-- end -->"
                text = text.replace(old, f"<!-- {part.command} -->\n{printed}<!-- end -->")
    if not check and text != page.read_text():
        page.write_text(text)
    return different


def parts(page: Path, text: str) -> Iterator[Part]:
    """The tables and figures of a page."""
    for made in _MADE.finditer(text):
        yield Part(page, made["command"], made["content"], exact=True)
    for block in _CONSOLE.finditer(text):
        for command in re.split(r"^\$ ", block["content"], flags=re.MULTILINE)[1:]:
            first, _, output = command.partition("\n")
            if _RESULTS.match(first):
                yield Part(page, first, output, exact=False)


def run(command: Sequence[str]) -> str:
    """What a command prints, run in the root of the repository.

    :raises RuntimeError: if it fails.
    """
    printed, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = fsrl_ext_main(command[1:]) if command[0] == "fsrl-ext" else _run_script(command[1:])
        except SystemExit as end:
            code = end.code or 0
    if code and (code != 1 or not printed.getvalue()):  # a script that misses a bar prints its table, too
        raise RuntimeError(f"{shlex.join(command)} failed: {code} {errors.getvalue().strip()}")
    return printed.getvalue()


def _run_script(command: Sequence[str]) -> int:
    """Runs ``benchmarks/... .py`` as Python does, with its folder at the front of the path."""
    arguments, path = sys.argv, list(sys.path)
    sys.argv = list(command)
    sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        sys.argv, sys.path[:] = arguments, path
    return 0


def different_pixels(one: Path, other: Path) -> float:
    """Share of the pixels in which two pictures differ visibly; 1 for pictures of different sizes."""
    from matplotlib.image import imread

    if not other.exists():
        return 1.0
    drawn, there = (imread(path)[..., :3] for path in (one, other))
    if drawn.shape != there.shape:
        return 1.0
    return float((np.abs(drawn - there).max(-1) > VISIBLE).mean())


def shows(part: Part, printed: str) -> bool:
    """Whether a page shows what a command printed."""
    if part.exact:
        return part.content == printed
    lines = (r"(?:.*\n)*?" if x == "..." else re.escape(x) + "\n" for x in part.content.splitlines())
    return re.fullmatch("".join(lines), printed) is not None


if __name__ == "__main__":
    sys.exit(main())
