"""``fsrl-ext zoo``: the trained policies that the package ships."""

from __future__ import annotations

import argparse
from typing import Any

_EXAMPLE = """examples:
  fsrl-ext zoo
  fsrl-ext evaluate zoo:NAME --video film.mp4
  fsrl-ext train cvpo TASK --init-from zoo:NAME
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "zoo",
        help="print the trained policies that come with the package",
        description="Print the trained policies that come with the package. zoo:NAME stands for one of them\n"
        "wherever a saved policy is expected.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print only this one")
    parser.set_defaults(command=_zoo)


def _zoo(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.report import text_table
    from fsrl_ext.report.table import error_text
    from fsrl_ext.zoo.policies import PREFIX, ZooPolicy, zoo_policies, zoo_policy

    def row(one: ZooPolicy) -> list[str]:
        costs = zip(one.cost_mean, one.cost_stderr, strict=True)
        return [
            f"{PREFIX}{one.name}",
            one.task,
            one.policy,
            ", ".join(f"{limit:g}" for limit in one.cost_limit),
            f"{one.steps:,}",
            error_text(one.return_mean, one.return_stderr, one.episodes),
            ", ".join(error_text(mean, error, one.episodes) for mean, error in costs),
            f"{one.file.stat().st_size / 1000:,.0f} kB",
        ]

    chosen = zoo_policies() if options.name is None else [zoo_policy(options.name)]
    header = ["name", "task", "policy", "limit", "steps", "return", "cost", "size"]
    print(text_table(header, list(map(row, chosen)), left=(0, 1, 2)))
    print("\n(final evaluations, deterministic episodes, mean ± standard error)\n")
    for one in chosen:
        print(
            f"{PREFIX}{one.name}: policy after {one.env_step:,} steps of\n  {one.command}  "
            f"(fsrl_ext {one.trained_with}, {one.episodes} episodes)"
        )
    return 0
