"""``fsrl-ext doctor``: what the installation has and lacks, and the commands that mend it."""

from __future__ import annotations

import argparse
import json
from typing import Any

_EXAMPLE = """\
examples:
  fsrl-ext doctor
  fsrl-ext doctor --json
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "doctor",
        help="check the installation, and print the command that mends what is missing",
        description="Print versions, and whether training, simulators, drawing and GPUs work here. Below\n"
        "what is missing stands the command that mends it. Simulators are tried in processes of their own.\n"
        "The exit code is 0 if everything that training needs is there, and 1 if it is not; simulators,\n"
        "drawing, GPUs and extras do not count.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.doctor import examine

    findings = examine()
    healthy = all(x.status == "ok" for x in findings if x.section == "core")
    if options.json:
        print(json.dumps({"ok": healthy, "findings": [vars(x) for x in findings]}, indent=2))
        return 0 if healthy else 1
    width = max(len(x.name) for x in findings)
    section = None
    for finding in findings:
        if finding.section != section:
            print(f"{'' if section is None else chr(10)}{finding.section}")
            section = finding.section
        print(f"  {finding.status:<7}  {finding.name:<{width}}  {finding.message}")
        if finding.mend:
            print(f"  {'':<7}  {'':<{width}}  mend: {finding.mend}")
    print(f"\n{'training works here' if healthy else 'training does not work here: see core above'}")
    return 0 if healthy else 1
