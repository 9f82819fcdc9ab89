"""Every Python block of the README and the docs runs, in order, on its page."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys.page_code import python_blocks

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "toys" / "page_code.py"
# These pages have tests that also judge what the blocks do.
TESTED_ELSEWHERE = {
    "docs/design.md": "tests/test_design_page.py",
    "docs/export.md": "tests/experiment/test_export.py",
    "docs/many_costs.md": "tests/experiment/test_named_costs.py",
    "docs/notebooks/adaptation.md": "tests/test_docs_site.py",
    "docs/notebooks/cvpo_step_by_step.md": "tests/test_docs_site.py",
    "docs/sweeps.md": "tests/experiment/test_sweep_plan.py",
    "docs/your_own_algorithm.md": "tests/experiment/test_own_algorithm.py",
    "docs/your_own_environment.md": "tests/experiment/test_own_environment.py",
}
# Run folders that pages read, and the block that makes them here.
MADE_BEFORE = ("README.md",)


def pages():
    return {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        if "_build" not in path.parts and python_blocks(path.read_text())
    }


PAGES = pages()
BLOCKS = [
    pytest.param(name, line, id=f"{name}:{line}")
    for name, text in PAGES.items()
    if name not in TESTED_ELSEWHERE
    for line, _ in python_blocks(text)
]


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Runs all pages in one process; its folder has the run folders that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    names = [*MADE_BEFORE, *(name for name in PAGES if name not in (*MADE_BEFORE, *TESTED_ELSEWHERE))]
    for name in ("one", "other"):
        (folder / "runs").mkdir(exist_ok=True)
        (folder / "runs" / name).symlink_to(ROOT / "tests" / "saved_runs" / "cpo_finished_0.1.0")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *(str(ROOT / name) for name in names)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {(Path(page).relative_to(ROOT).as_posix(), line): error for page, line, error in results}


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), BLOCKS)
def test_the_block_runs(page, line, errors):
    assert errors[page, line] is None, errors[page, line]


@pytest.mark.parametrize(("page", "test"), TESTED_ELSEWHERE.items())
def test_the_other_pages_are_run_by_their_own_tests(page, test):
    text = (ROOT / test).read_text()
    assert page in PAGES
    assert Path(page).name in text


@pytest.mark.parametrize("page", PAGES)
def test_no_block_is_a_sketch(page):
    """An ellipsis as an argument stands for code that a reader cannot run."""
    for line, code in python_blocks(PAGES[page]):
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
        sketched = [ast.unparse(x) for x in calls if any(getattr(a, "value", None) is ... for a in x.args)]
        assert not sketched, f"{page}:{line} has {sketched}"
