"""docs/experiments.md shows every part and kind; test_docs_results.py runs the commands of the page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "experiments.md").read_text()


def test_the_page_shows_every_part_and_kind():
    assert len(re.findall(r"^\$ fsrl-ext ", PAGE, re.MULTILINE)) == 5
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
