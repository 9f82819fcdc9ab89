"""``fsrl-ext list``."""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLE = """examples:
  fsrl-ext list
  fsrl-ext list policies
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "list",
        help="print tasks, policies and studies",
        description="Print the policies, the studies of fsrl-ext sweep, and the tasks of all suites.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=("tasks", "policies", "studies"), help="print only these")
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.env import list_tasks
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.experiment.sweeps.shipped import shipped_studies, summary
    from fsrl_ext.report import text_table

    tables = []
    if options.what in (None, "policies"):
        policies = [[name, row.summary] for name, row in algorithms().items()]
        tables.append(text_table(["policy", "what it is"], policies, left=(0, 1)))
    if options.what in (None, "studies"):
        studies = [[name, summary(path)] for name, path in shipped_studies().items()]
        tables.append(text_table(["study of fsrl-ext sweep", "what it is"], studies, left=(0, 1)))
    if options.what in (None, "tasks"):
        tasks = [
            [
                task.id,
                task.suite + ("" if task.installed else " (not installed)"),
                str(task.horizon or "none"),
                {True: "yes", False: "no", None: "unknown"}[task.can_terminate],
            ]
            for task in list_tasks()
        ]
        tables.append(text_table(["task", "suite", "time limit", "can end earlier"], tasks))
    print("\n\n".join(tables))
    return 0
