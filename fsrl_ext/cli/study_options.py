"""Options that ``table`` and ``plot`` share, and how they tell which runs were left out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Adds the folders, and the selection and grouping of their runs."""
    parser.add_argument(
        "folders", nargs="+", metavar="DIR", help="run folders, folders of them, or files seed<k>.json"
    )
    parser.add_argument(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=A,B",
        help="only runs whose config has one of these values, such as policy=cvpo,sac_lag",
    )
    parser.add_argument(
        "--by",
        default="",
        metavar="FIELD,FIELD",
        help="config fields that tell rows or curves apart (default: policy, and label where there are any)",
    )
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave out damaged files instead of stopping there"
    )


def fields(text: str) -> list[str]:
    """The names in a text that separates them by commas."""
    return [x for x in text.split(",") if x.strip()]


def whole_numbers(text: str) -> list[int]:
    """The numbers in a text that separates them by commas.

    :raises argparse.ArgumentTypeError: for anything else.
    """
    try:
        return [int(x) for x in fields(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers, separated by commas, got {text!r}"
        ) from None


def name_skipped(lines: Sequence[str]) -> None:
    """Prints which runs were left out, and why; of many, the first ones and their number."""
    for line in lines[:5]:
        print(f"fsrl-ext: left out: {line}", file=sys.stderr)
    if len(lines) > 5:
        print(f"fsrl-ext: left out: {len(lines) - 5} more", file=sys.stderr)


def check_output(text: str, suffixes: Sequence[str] = ()) -> Path:
    """The path of a file to write, which may replace an older one.

    :raises ValueError: if its folder does not exist, it is a folder itself, or its suffix is another.
    """
    path = Path(text)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"--out must end in {' or '.join(suffixes)}, got {text}")
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ValueError(f"--out {text} cannot be written: {reason}")
    return path
