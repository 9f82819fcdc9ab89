"""``fsrl-ext plot``: figures of many runs."""

from __future__ import annotations

import argparse
from typing import Any

from fsrl_ext.cli.study_options import add_selection, check_output, fields, name_skipped

_EXAMPLE = """example:
  fsrl-ext plot runs --where policy=cvpo,sac_lag --by policy --facet task --out curves.pdf
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "plot",
        help="draw finished runs: curves, final costs, return against cost, frontier, profiles",
        description="Draw the finished runs below some folders.\n"
        "Runs that have not finished are left out and named.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection(parser)
    parser.add_argument(
        "--out", metavar="FILE", required=True, help="a .png, .pdf or .svg file, which is replaced"
    )
    parser.add_argument(
        "--kind",
        choices=("curves", "costs", "scatter", "frontier", "profiles"),
        default="curves",
        help="curves along the training, box plots of final costs, return against cost, the same along a "
        "sweep of limits, or performance profiles over tasks (default: curves)",
    )
    parser.add_argument(
        "--facet", default="task", metavar="FIELD,FIELD", help="what tells panels apart; tasks always do"
    )
    parser.add_argument(
        "--policy",
        choices=("best", "last"),
        default="best",
        help="the policies that figures other than curves show (default: best)",
    )
    curves = parser.add_argument_group("curves")
    curves.add_argument(
        "--x",
        choices=("steps", "time", "cost"),
        default="steps",
        help="over steps, wall time or the cost of all training episodes so far (default: steps)",
    )
    curves.add_argument(
        "--episodes",
        choices=("training", "deterministic", "both"),
        default="training",
        help="training episodes (default), selections with deterministic actions, or both",
    )
    statistic = curves.add_mutually_exclusive_group()
    statistic.add_argument(
        "--mean",
        dest="statistic",
        action="store_const",
        const="mean",
        default="mean",
        help="mean over seeds with a 95%% t interval (default)",
    )
    statistic.add_argument(
        "--iqm",
        dest="statistic",
        action="store_const",
        const="iqm",
        help="interquartile mean over seeds with a 95%% bootstrap interval",
    )
    parser.set_defaults(command=_plot)


def _plot(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.report.study.plots import SUFFIXES, study_plot

    out = check_output(options.out, SUFFIXES)
    caption, skipped = study_plot(
        options.folders,
        out,
        kind=options.kind,
        conditions=options.where,
        by=fields(options.by),
        facet=fields(options.facet),
        x=options.x,
        statistic=options.statistic,
        episodes=options.episodes,
        which=options.policy,
        skip_damaged=options.skip_damaged,
    )
    name_skipped(skipped)
    print(f"{out}: {caption}")
    return 0
