"""docs/experiments.md: every command of the page prints what the page shows, and draws its figures."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from fsrl_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "experiments.md").read_text()


def commands():
    """Yield each command of the page with the lines that the page shows of its output."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


@pytest.mark.parametrize(("command", "output"), list(commands()))
def test_a_command_prints_what_the_page_shows(command, output, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    program, *arguments = command.split()
    assert program == "fsrl-ext"
    figure = None
    if "--out" in arguments:
        figure = Path(arguments[arguments.index("--out") + 1])
        arguments[arguments.index("--out") + 1] = str(tmp_path / figure.name)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    if figure is not None:
        printed = printed.replace(str(tmp_path / figure.name), str(figure))
        drawn, committed = (imread(path)[..., :3] for path in (tmp_path / figure.name, ROOT / figure))
        # Other versions of the fonts move a line by a pixel, which changes few of all pixels.
        assert drawn.shape == committed.shape
        assert (np.abs(drawn - committed).max(-1) > 0.2).mean() < 0.01
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in output.splitlines()
    )
    assert re.fullmatch(pattern, printed), f"the page no longer shows what '{command}' prints:\n{printed}"


def test_the_page_shows_every_part_and_kind():
    assert sum(1 for _ in commands()) == 5
    for word in (
        "policies",
        "training",
        "scores",
        "improvement",
        "published",
        "curves",
        "frontier",
        "profiles",
    ):
        assert f"`{word}`" in PAGE
