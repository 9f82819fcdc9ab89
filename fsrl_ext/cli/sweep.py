"""``fsrl-ext sweep``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsrl_ext.experiment.sweeps.description import Description

_EXAMPLE = """examples:
  fsrl-ext sweep --policies cvpo,sac_lag --tasks SafetyCarCircle-v0 --seeds 0-4 \\
      --cost-limits 5,10,25 --gamma 0.97,0.99 --steps 300000 --out study --dry-run
  fsrl-ext sweep study.toml
  fsrl-ext sweep cvpo-paper-small --dry-run
"""


def add_command(commands: Any, arguments: Sequence[str]) -> None:
    """Adds the command; the settings become options only if the arguments call it, since they take imports.

    :param arguments: all of the command line.
    """
    parser = commands.add_parser(
        "sweep",
        help="train policies x tasks x limits x settings x seeds, and go on after a stop",
        description="Train every combination of policies, tasks, values and seeds, several at a time, each\n"
        "in a run folder below --out. Finished runs are skipped and others are continued, so the\n"
        "same command goes on after a stop.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "study",
        nargs="?",
        metavar="FILE or NAME",
        help="a study file in TOML, or a study of 'fsrl-ext list studies'; options beside it win over it",
    )
    parser.add_argument("--policies", metavar="NAME,NAME", help="'fsrl-ext list policies' lists them")
    parser.add_argument("--tasks", metavar="ID,ID", help="'fsrl-ext list tasks' lists them")
    parser.add_argument(
        "--seeds", "--seed", metavar="SEEDS", help="such as 0-4 or 0,2,5; 3 is the one seed 3 (default: 0)"
    )
    settings = parser.add_argument_group(
        "settings",
        "Every setting of 'fsrl-ext train' is an option here, such as --gamma 0.97,0.99. Commas\n"
        "separate values, each of which is run. Slashes separate the numbers of one value, as in\n"
        "--hidden-sizes 128/128,256/256.",
    )
    settings.add_argument(
        "--cost-limits",
        "--cost-limit",
        dest="cost_limit",
        default=argparse.SUPPRESS,
        metavar="X,Y",
        help="limits of the cost of an episode, each of which is run (default: that of the task)",
    )
    settings.add_argument(
        "--preset", default=argparse.SUPPRESS, metavar="NAME,NAME", help="bundles of settings of the policies"
    )
    settings.add_argument(
        "--grid",
        nargs="+",
        action="extend",
        default=[],
        metavar="SETTING=A,B",
        help="several settings at once: --grid gamma=0.97,0.99 tau=0.05",
    )
    settings.add_argument(
        "--for",
        dest="only_for",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME SETTING=A,B",
        help="settings of some policies or tasks: --for cvpo kl_bound=0.05,0.1",
    )
    _add_resources(parser)
    if arguments[:1] == ["sweep"] and not any(_asks_for_help(x) for x in arguments):
        from fsrl_ext.cli.train_options import all_settings

        for name in all_settings():
            if name not in ("seed", "cost_limit"):
                settings.add_argument(
                    f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=argparse.SUPPRESS
                )
    parser.set_defaults(command=_sweep)


def _add_resources(parser: argparse.ArgumentParser) -> None:
    """Adds where the runs go, what they may use, and what is shown."""
    place = parser.add_argument_group("where and how the runs run")
    place.add_argument("--out", metavar="DIR", help="the study's folder (default: study, or the file's name)")
    place.add_argument(
        "--cores", type=int, metavar="N", help="processor cores for all runs together (default: all)"
    )
    place.add_argument(
        "--cpus-per-run", type=float, metavar="X", help="cores of one run, 0.5 for half a core (default: 1)"
    )
    place.add_argument(
        "--gpus-per-run", type=float, metavar="X", help="GPUs of one run, 0.25 for a quarter (default: 0)"
    )
    place.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster that was started apart")
    place.add_argument("--quiet", action="store_true", help="show no overview of the running trials")
    place.add_argument(
        "--dry-run", action="store_true", help="print the plan and an estimate of the time, and run nothing"
    )


def _asks_for_help(argument: str) -> bool:
    return argument == "-h" or (len(argument) > 3 and "--help".startswith(argument))


def _sweep(options: argparse.Namespace, command: str) -> int:
    plan = _described(options).plan(command)
    from fsrl_ext.experiment.sweeps.dry_run import plan_text, table_command

    if options.dry_run:
        print(plan_text(plan))
        return 0
    from fsrl_ext.experiment.sweeps.drive import run_plan

    outcome = run_plan(plan, show_progress=not options.quiet)
    print(f"{len(outcome.finished)} of {len(plan.runs)} runs have finished, in {plan.folder}")
    for name in outcome.failed:
        print(f"failed: {name}; its last lines are in {plan.folder / 'logs' / name}.log")
    for name in outcome.unfinished:
        print(f"not finished: {name}")
    if outcome.finished:
        print(f"to compare them: {table_command(plan)}")
    if outcome.failed or outcome.unfinished:
        print(f"to go on: {command}")
        return 1
    return 0


def _described(options: argparse.Namespace) -> Description:
    """The study of the file, if there is one, and of the options, which win over it.

    :raises ValueError: for a file or an option that cannot be used.
    """
    from fsrl_ext.cli.train_options import all_settings
    from fsrl_ext.experiment.sweeps.description import RESOURCES, Description, read_study_file
    from fsrl_ext.experiment.sweeps.values import split_list

    study = Description() if options.study is None else read_study_file(options.study)
    if options.policies is not None:
        study.replace_policies(split_list(options.policies))
    if options.tasks is not None:
        study.replace_tasks(split_list(options.tasks))
    if options.seeds is not None:
        study.seeds = options.seeds
    if options.out is not None:
        study.out = options.out
    for name in RESOURCES:
        if getattr(options, name) is not None:
            study.resources[name] = getattr(options, name)
    given = {name: getattr(options, name) for name in ("preset", *all_settings()) if hasattr(options, name)}
    for word in options.grid:
        name, text = _assignment(word, "--grid")
        if name in given:
            raise ValueError(f"{name} is given twice: by --grid {word} and by {given[name]!r}")
        given[name] = text
    for name, text in given.items():
        study.set_for_all(name, split_list(text))
    for words in options.only_for:
        names = [word for word in words if "=" not in word]
        values = dict(_assignment(word, "--for") for word in words if "=" in word)
        if not names or not values:
            raise ValueError(
                f"--for must be followed by policies or tasks, then by setting=value, got {' '.join(words)}"
            )
        policy = values.pop("policy", None)
        study.set_for(
            names,
            {
                **({} if policy is None else {"policy": policy}),
                **{name: split_list(text) for name, text in values.items()},
            },
        )
    return study


def _assignment(word: str, option: str) -> tuple[str, str]:
    """Name and text of ``setting=value``; ``-`` may stand for ``_`` in the name.

    :raises ValueError: for another form.
    """
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise ValueError(f"{option} must be followed by setting=value[,value], got {word!r}")
    return name.replace("-", "_"), text
