"""Every table and figure of the documentation is that of the committed result files."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread, imsave
from toys.studies import judged, write_small

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "docs_results.py"
ROOT = SCRIPT.parents[1]


def load():
    spec = importlib.util.spec_from_file_location("docs_results", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass asks for it
    spec.loader.exec_module(module)
    return module


docs_results = load()
PAGES = [page for page in docs_results.pages() if list(docs_results.parts(page, page.read_text()))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_that_of_the_result_files(page):
    assert docs_results.remake(page, check=True) == []


def test_the_pages_of_results_are_among_them():
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "docs/experiments.md", "docs/known_optimum.md", "docs/environments.md"} <= names
    assert "docs/concepts.md" in names
    algorithms = (
        "cvpo",
        "sac_lag",
        "ddpg_lag",
        "td3_lag",
        "cpo",
        "trpo_lag",
        "ppo_lag",
        "focops",
        "meta_cpo",
    )
    assert {f"docs/algorithms/{x}.md" for x in algorithms} <= names


TABLE = "fsrl-ext table results --columns best-return --format markdown --bare"
PLOT = "fsrl-ext plot results --kind costs --out costs.png"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page with a table and a figure of one result file, both remade."""
    monkeypatch.setattr(docs_results, "ROOT", tmp_path)
    write_small(tmp_path / "results" / "Toy-v0" / "sac_lag" / "seed0.json")
    page = tmp_path / "page.md"
    picture = "![Costs](costs.png)\n"
    page.write_text(
        f"Before.\n\n<!-- {TABLE} -->\n<!-- end -->\n\n<!-- {PLOT} -->\n{picture}<!-- end -->\n\nAfter.\n"
    )
    assert len(docs_results.remake(page, check=False)) == 2
    assert docs_results.remake(page, check=True) == []
    assert "| Toy-v0 | sac_lag | 10 | 1,000 | 1 | 30.0 |\n<!-- end -->" in page.read_text()
    assert page.read_text().startswith("Before.\n")
    assert page.read_text().endswith("<!-- end -->\n\nAfter.\n")
    return page


def test_a_wrong_number_is_named_and_remade(page):
    right = page.read_text()
    page.write_text(right.replace("30.0", "31.0"))
    (text,) = docs_results.remake(page, check=True)
    assert text.startswith(f"page.md: {TABLE}\n")
    assert "-| Toy-v0 | sac_lag | 10 | 1,000 | 1 | 31.0 |" in text
    assert "31.0" in page.read_text()
    docs_results.remake(page, check=False)
    assert page.read_text() == right


def test_a_changed_result_changes_the_table_and_the_figure(page, tmp_path):
    file = tmp_path / "results" / "Toy-v0" / "sac_lag" / "seed0.json"
    write_small(file, best=judged(30.4, (6.0,), (10.0,), episodes=False))
    table, figure = docs_results.remake(page, check=True)
    assert "+| Toy-v0 | sac_lag | 10 | 1,000 | 1 | 30.4 |" in table
    assert "costs.png: " in figure


def test_pixels(tmp_path, page):
    """A line that moves by a pixel is another picture; another shade of all pixels is not."""
    drawn = imread(tmp_path / "costs.png")[..., :3]
    imsave(tmp_path / "shade.png", np.clip(drawn + 0.05, 0, 1))
    imsave(tmp_path / "moved.png", np.roll(drawn, 4, axis=0))
    imsave(tmp_path / "small.png", drawn[:-1])
    share = {
        name: docs_results.different_pixels(tmp_path / f"{name}.png", tmp_path / "costs.png")
        for name in ("shade", "moved", "small", "costs")
    }
    assert share["costs"] == share["shade"] == 0
    assert share["moved"] > docs_results.MOST_PIXELS
    assert share["small"] == 1


def test_a_console_block_is_checked_with_its_figure(page, tmp_path):
    shutil.copytree(tmp_path / "results", tmp_path / "benchmarks" / "results")
    block = (
        "```console\n$ fsrl-ext table benchmarks/results --columns best-return --bare\n"
        "...\nToy-v0  sac_lag     10  1,000      1         30.0\n```\n"
    )
    page.write_text(block)
    assert docs_results.remake(page, check=True) == []
    page.write_text(block.replace("30.0", "31.0"))
    assert len(docs_results.remake(page, check=True)) == 1


def test_a_command_that_fails_is_an_error(page):
    page.write_text(page.read_text().replace("best-return", "best-retrun"))
    with pytest.raises(RuntimeError, match="did you mean best-return"):
        docs_results.remake(page, check=True)
