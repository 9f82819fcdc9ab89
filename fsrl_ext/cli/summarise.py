"""``fsrl-ext summarise``: small result files of finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fsrl_ext.cli.study_options import name_skipped

_EXAMPLE = """example:
  fsrl-ext summarise runs --out results --label gamma099
  fsrl-ext table results
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "summarise",
        help="write a small result file of every finished run, to be kept under version control",
        description="Write a small file TASK/POLICY/[LABEL/]seed<k>.json of every finished run below some\n"
        "folders. 'table' and 'plot' read these files as they read run folders.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="run folders, or folders of them")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder of the files")
    parser.add_argument(
        "--label", default="", metavar="NAME", help="a folder of its own, for runs with other settings"
    )
    parser.add_argument("--replace", action="store_true", help="replace files that have other content")
    parser.set_defaults(command=_summarise)


def _summarise(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.report.study.summary import summarise

    files, skipped = summarise(
        options.folders, Path(options.out), label=options.label, replace=options.replace
    )
    name_skipped(skipped)
    for file in files:
        print(file)
    return 0
