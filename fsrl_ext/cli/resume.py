"""``fsrl-ext resume``."""

from __future__ import annotations

import argparse
from typing import Any

from fsrl_ext.cli.closing import print_result
from fsrl_ext.cli.options import add_allow_import, add_cores

_EXAMPLE = """example:
  fsrl-ext resume runs/SafetyBallCircle-v0-cvpo-seed0-1
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "resume",
        help="go on with a run that was interrupted or killed",
        description="Go on from the run's last snapshot, which training takes at its start and about every\n"
        "minute, or finish the final evaluation. In deterministic environments, with the same versions\n"
        "on the same machine, the run ends as if nothing had happened.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    add_allow_import(parser)
    add_cores(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(command=_resume)


def _resume(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment import resume

    return print_result(
        resume(
            options.run,
            show_progress=not options.quiet,
            allow_import=options.allow_import,
            cores=options.cores,
        )
    )
