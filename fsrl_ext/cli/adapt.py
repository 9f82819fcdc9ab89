"""``fsrl-ext adapt``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fsrl_ext.cli.options import (
    STEP_OPTIONS,
    add_allow_import,
    add_saved_policy,
    add_step_options,
    check_checkpoint,
    check_new_files,
    parse_cost_limit,
)

_EXAMPLE = """examples:
  fsrl-ext adapt examples/meta/point_stcircle.pt --task SafetyPointStcircle2-v0 --task-seed 7
  fsrl-ext adapt runs/SafetyBallCircle-v0-cpo-seed0-1 --task SafetyBallCircle-v0 --cost-limit 5
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "adapt",
        help="adapt a saved policy to a task",
        description="Adapt a saved meta-learned policy to a task, or fine-tune a saved on-policy one. The\n"
        "policy is measured before and after each step: in the data that it collects, where actions\n"
        "are sampled and which the next step learns from, and in deterministic episodes.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_saved_policy(parser)
    add_allow_import(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.add_argument("--task", metavar="ID", required=True, help="an environment id")
    parser.add_argument("--task-seed", type=int, help="draws the task of a family's id (default: 0)")
    parser.add_argument(
        "--steps", type=int, default=5, metavar="K", help="steps of the adaptation (default: 5)"
    )
    parser.add_argument(
        "--episodes", type=int, default=10, help="deterministic episodes of each test (default: 10)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the data that is learnt from (default: 0)"
    )
    parser.add_argument(
        "--step-per-collect",
        type=int,
        metavar="N",
        help="environment steps of each collect (default: as in training)",
    )
    parser.add_argument("--cost-limit", metavar="X[,Y]", help="adapt to another limit than the run's")
    add_step_options(parser)
    parser.add_argument("--out", metavar="FILE", help="write the adapted policy to a new .pt file")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a new file")
    parser.set_defaults(command=_adapt)


def _adapt(options: argparse.Namespace, command: str) -> int:
    check_new_files(options.json, options.out)
    check_checkpoint(options.run, options.checkpoint)
    from fsrl_ext.cost_names import cost_word
    from fsrl_ext.experiment.saved.adapt import adapt
    from fsrl_ext.experiment.saved.adapt_report import adaptation_report, adaptation_table
    from fsrl_ext.report.files import write_json

    names = (
        *("task_seed", "steps", "episodes", "seed", "checkpoint", "step_per_collect", "device", "out"),
        "allow_import",
    )
    done = adapt(
        options.run,
        options.task,
        cost_limit=parse_cost_limit(options.cost_limit),
        show_progress=not options.quiet,
        **{name: getattr(options, name) for name in (*names, *STEP_OPTIONS)},
    )
    drawn = "".join(f", {name} {value:g}" for name, value in done.parameters.items())
    seed = "" if done.task_seed is None else f", task seed {done.task_seed}"
    limit = ", ".join(f"{x:g}" for x in done.cost_limit)
    unit = cost_word(done.limit_unit)
    print(f"{done.checkpoint} on {done.task}{seed}{drawn}; {unit} limit {limit}")
    print(adaptation_table(done))
    print("(mean ± standard error; left of the test columns: episodes of the data that is learnt from)")
    if options.json is not None:
        write_json(Path(options.json), {"command": command, **adaptation_report(done)})
    if options.out is not None:
        seed = "" if done.task_seed is None else f" --task-seed {done.task_seed}"
        print(f"adapted policy: {options.out}")
        print(f"to judge or film it there: fsrl-ext evaluate {options.out} --task {done.task}{seed}")
    return 0
