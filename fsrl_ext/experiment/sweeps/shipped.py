"""The studies that come with the package, by name: ``fsrl-ext sweep cvpo-paper-small``."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "studies"
"""Study files, whose names without suffix are the names of the studies."""


def shipped_studies() -> dict[str, Path]:
    """The study files that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def summary(path: Path) -> str:
    """What a shipped study is about: the first line of its file, which is a comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
