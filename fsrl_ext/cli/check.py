"""``fsrl-ext check``: whether an environment keeps the contract, and what mends what does not."""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLE = """examples:
  fsrl-ext check my_package.tasks:Cart-v0
  fsrl-ext check my_package.teams:make_team      # a function that builds a pettingzoo.ParallelEnv
  fsrl-ext check SafetyPointGoal2-v0 --costs hazards,vases
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "check",
        help="check whether an environment can be trained on",
        description="Build an environment, play it, and print one line for each check of what training\n"
        "needs. Below a check that fails stands the line of code that mends it. The exit code is 0\n"
        "if nothing fails, 1 if something does, and 2 for a task that does not exist.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", metavar="TASK", help="an id, module:id or module:function")
    parser.add_argument("--costs", metavar="NAMES", help="names of costs, as in training (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of resets and actions (default: 0)")
    parser.add_argument(
        "--no-workers",
        dest="workers",
        action="store_false",
        help="start no processes that play the environment",
    )
    parser.set_defaults(command=_check)


def _check(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.env import check_env

    costs = None if options.costs is None else tuple(options.costs.split(","))
    findings = check_env(options.task, seed=options.seed, costs=costs, workers=options.workers)
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        message = " ".join(finding.message.split())
        print(f"{finding.status:<7}  {finding.check:<{width}}  {message}")
        if finding.fix:
            print(f"{'':<7}  {'':<{width}}  mend: {finding.fix}")
    counts = {
        status: sum(finding.status == status for finding in findings) for status in ("ok", "fails", "skipped")
    }
    print(f"\n{options.task}: {counts['ok']} ok, {counts['fails']} failed, {counts['skipped']} skipped")
    return 1 if counts["fails"] else 0
