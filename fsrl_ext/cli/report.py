"""``fsrl-ext report``: a study as one HTML file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsrl_ext.cli.options import add_allow_import
from fsrl_ext.cli.study_options import add_selection, check_output, fields, name_skipped

_EXAMPLE = """example:
  fsrl-ext report runs --where policy=cvpo,sac_lag --films --out study.html
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "report",
        help="write one HTML page about finished runs: tables, interactive curves, diagnostics, configs",
        description="Write one HTML file about the finished runs below some folders, which works offline.\n"
        "Runs that have not finished are left out and named.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="a .html file, which is replaced")
    parser.add_argument("--title", metavar="TEXT", help="of the page (default: what was compared)")
    parser.add_argument(
        "--films",
        action="store_true",
        help="film the best policy of one run of each row, where the task can be drawn; takes seconds to "
        "minutes for each",
    )
    add_allow_import(parser)
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.report.page import study_page

    out = check_output(options.out, (".html", ".htm"))
    if options.allow_import and not options.films:
        raise ValueError("--allow-import is about the tasks that --films draws")

    def film(run: Path, path: Path) -> Mapping[str, Any]:
        from fsrl_ext.experiment.saved.film import record_video

        print(f"fsrl-ext: filming {run}", file=sys.stderr)
        return record_video(run, path, allow_import=options.allow_import)[0]

    skipped = study_page(
        options.folders,
        out,
        conditions=options.where,
        by=fields(options.by),
        title=options.title,
        command=command,
        film=film if options.films else None,
        skip_damaged=options.skip_damaged,
    )
    name_skipped(skipped)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, opens in every browser without a network")
    return 0
