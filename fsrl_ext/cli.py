"""The command line: ``fsrl-ext train | list``."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import fsrl_ext


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        return options.command(options, shlex.join(["fsrl-ext", *arguments]))
    except (ValueError, ImportError, FloatingPointError) as error:
        print(f"fsrl-ext: {error}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    except KeyboardInterrupt:
        print("fsrl-ext: interrupted", file=sys.stderr)
        return 130


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    print(f"fsrl-ext: {category.__name__}: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fsrl-ext", description="Constrained (safe) reinforcement learning."
    )
    parser.add_argument("--version", action="version", version=f"fsrl_ext {fsrl_ext.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    listing = commands.add_parser("list", help="print tasks and policies")
    listing.add_argument("what", nargs="?", choices=("tasks", "policies"), help="print only these")
    listing.set_defaults(command=_list)
    return parser


def _add_train(commands: Any) -> None:
    from fsrl_ext.experiment.settings import list_settings

    train = commands.add_parser(
        "train",
        help="train a policy on a task",
        description="Train a policy on a task; ends with an evaluation, a table and a picture.",
    )
    train.add_argument("policy", help="cvpo, ...: see 'fsrl-ext list policies'")
    train.add_argument("task", help="an environment id: see 'fsrl-ext list tasks'")
    train.add_argument("--out", default="runs", help="the run folder's parent (default: runs)")
    train.add_argument("--run-name", help="the run folder's name (default: a fresh one)")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    titles = {"run": "the run", "policy": "the policy", "training": "networks and training loop"}
    groups = {key: train.add_argument_group(title) for key, title in titles.items()}
    for setting in list_settings().values():
        if setting.name not in ("policy", "task"):
            groups[setting.section].add_argument(
                f"--{setting.name.replace('_', '-')}",
                default=argparse.SUPPRESS,
                metavar="VALUE",
                help=setting.help.replace("%", "%%"),
            )
    train.set_defaults(command=_train)


def _train(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment import make_config, run
    from fsrl_ext.experiment.settings import list_settings
    from fsrl_ext.report import result_table

    given = vars(options)
    known = list_settings(options.policy)
    settings = {name: known[name].parse(given[name]) for name in known if name in given}
    config = make_config(**settings)
    done = run(
        config,
        out=options.out,
        run_name=options.run_name,
        show_progress=not options.quiet,
        command=command,
    )
    print()
    if done.status == "finished":
        print(result_table(done.result))
    else:
        print(f"interrupted after {done.result['env_step']:,} steps; the best policy so far is saved")
    print(f"run folder: {done.folder}\ncurves:     {done.folder / 'curves.png'}")
    return 0 if done.status == "finished" else 130


def _list(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.env import list_tasks
    from fsrl_ext.experiment.registry import POLICIES
    from fsrl_ext.report import text_table

    if options.what != "tasks":
        print(text_table(["policy", "what it is"], [[k, v.summary] for k, v in POLICIES.items()]))
    if options.what is None:
        print()
    if options.what != "policies":
        rows = [
            [
                task.id,
                task.suite + ("" if task.installed else " (not installed)"),
                str(task.horizon or "none"),
                {True: "yes", False: "no", None: "unknown"}[task.can_terminate],
            ]
            for task in list_tasks()
        ]
        print(text_table(["task", "suite", "time limit", "can end earlier"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
