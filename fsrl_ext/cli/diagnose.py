"""``fsrl-ext diagnose``: critics, constraint and episodes of a saved policy, measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fsrl_ext.cli.options import add_allow_import, add_saved_policy, check_checkpoint, check_new_files

_EXAMPLE = """example:
  fsrl-ext diagnose runs/SafetyPointGoal1-v0-cvpo-seed0-1 --checkpoint last --out diagnosis
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "diagnose",
        help="measure critics, constraint and episodes of a saved policy",
        description="Play a saved policy and compare what its critics say with what is realised: their\n"
        "level, and whether they rank states and actions. Print what the constraint is held by,\n"
        "how it went in training, and a verdict. The run may still be in training.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_saved_policy(parser)
    add_allow_import(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.add_argument(
        "--episodes",
        type=int,
        default=20,
        help="with sampled and with deterministic actions each (default: 20)",
    )
    parser.add_argument(
        "--states",
        type=int,
        default=40,
        help="from which several first actions are replayed; 0 leaves this out (default: 40)",
    )
    parser.add_argument(
        "--actions", type=int, default=4, help="first actions in each of these states (default: 4)"
    )
    parser.add_argument("--seed", type=int, help="the first episode's seed; the next ones count up")
    parser.add_argument(
        "--out", metavar="DIR", help="write diagnosis.json and diagnosis.png to a folder, made if missing"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a new file")
    parser.set_defaults(command=_diagnose)


def _diagnose(options: argparse.Namespace, command: str) -> int:
    check_checkpoint(options.run, options.checkpoint)
    out = None if options.out is None else Path(options.out)
    if out is not None:
        if not out.is_dir():
            check_new_files(options.out)
        else:
            check_new_files(str(out / "diagnosis.json"), str(out / "diagnosis.png"))
    check_new_files(options.json)
    from fsrl_ext.experiment.saved.diagnosis.diagnose import diagnose
    from fsrl_ext.report.diagnosis.figure import draw_diagnosis
    from fsrl_ext.report.diagnosis.findings import kind_label
    from fsrl_ext.report.diagnosis.tables import diagnosis_text
    from fsrl_ext.report.files import write_json

    names = ("episodes", "states", "actions", "seed", "checkpoint", "device", "allow_import")
    report = diagnose(
        options.run, show_progress=not options.quiet, **{name: getattr(options, name) for name in names}
    )
    seeds = report["seeds"]
    print(
        f"{report['checkpoint']}: {report['policy']} on {report['task']}, trained for "
        f"{report['env_step']:,} steps; {len(seeds)} stochastic and {len(seeds)} {kind_label(report)} "
        f"episodes, seeds {seeds[0]} to {seeds[-1]}\n"
    )
    print(diagnosis_text(report))
    data = {"command": command, **report}
    if options.json is not None:
        write_json(Path(options.json), data)
    if out is not None:
        out.mkdir(exist_ok=True)
        write_json(out / "diagnosis.json", data)
        draw_diagnosis(report, out / "diagnosis.png")
        print(f"\nnumbers and picture: {out / 'diagnosis.json'}, {out / 'diagnosis.png'}")
    return 0
