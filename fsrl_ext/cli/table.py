"""``fsrl-ext table``: a comparison of many runs, feasibility first."""

from __future__ import annotations

import argparse
from typing import Any

from fsrl_ext.cli.study_options import add_selection, check_output, fields, name_skipped, whole_numbers

_EXAMPLE = """example:
  fsrl-ext table runs --where policy=cvpo,sac_lag cost_limit=10 --by policy --format markdown --out table.md
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "table",
        help="compare finished runs: returns, costs, feasible seeds, statistics over tasks",
        description="Compare the finished runs below some folders, task by task and over tasks.\n"
        "Runs that have not finished are left out and named.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection(parser)
    parser.add_argument(
        "--format", choices=("text", "markdown", "csv", "latex"), default="text", help="(default: text)"
    )
    parser.add_argument("--out", metavar="FILE", help="write to a file, which is replaced (default: print)")
    parser.add_argument(
        "--part",
        nargs="+",
        choices=("policies", "training", "scores", "improvement", "published"),
        default=[],
        help="only these tables (default: all; of a CSV file: policies)",
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="NAME,NAME",
        help="one table of these columns instead, such as best-return,best-cost,above; there are also "
        "selected-as-feasible, feasible-selections and first-feasible",
    )
    parser.add_argument(
        "--at",
        type=whole_numbers,
        default=[],
        metavar="STEP,STEP",
        help="return and cost of the training episodes before these steps, as columns of that table",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=20_000,
        metavar="N",
        help="environment steps that they are from (default: 20000)",
    )
    parser.add_argument("--bare", action="store_true", help="the tables alone, without titles and notes")
    parser.add_argument("--against", choices=("published",), help="put published results beside the rows")
    parser.add_argument(
        "--score", choices=("best", "last"), default="best", help="policies that are scored (default: best)"
    )
    parser.add_argument(
        "--normalise",
        choices=("best", "published"),
        default="best",
        help="a score of 1 is the best feasible row, or the best published one (default: best)",
    )
    parser.set_defaults(command=_table)


def _table(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.report.files import replacing
    from fsrl_ext.report.study import study_table

    out = None if options.out is None else check_output(options.out)
    text, skipped = study_table(
        options.folders,
        conditions=options.where,
        by=fields(options.by),
        form=options.format,
        parts=options.part or (["published"] if options.against and options.format == "csv" else []),
        columns=fields(options.columns),
        at=options.at,
        window=options.window,
        bare=options.bare,
        score=options.score,
        normalise=options.normalise,
        published=options.against is not None,
        skip_damaged=options.skip_damaged,
    )
    name_skipped(skipped)
    if out is None:
        print(text, end="")
    else:
        with replacing(out) as file:
            file.write(text.encode())
    return 0
