"""``fsrl-ext train``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fsrl_ext.cli.closing import print_result
from fsrl_ext.cli.options import check_checkpoint
from fsrl_ext.cli.policy_names import check_policy

_EXAMPLE = """examples:
  fsrl-ext train cvpo SafetyBallCircle-v0 --cost-limit 10 --steps 200000
  fsrl-ext train cvpo SafetyPointGoal2-v0 --costs hazards,vases --cost-limit 10,25
  fsrl-ext train ppo_lag SafetyPointGoal1-v0 --help     # the settings and defaults of this run
"""


def add_command(commands: Any, arguments: Sequence[str]) -> None:
    """Adds the command; its options are added only if the arguments call it, since they take imports.

    :param arguments: all of the command line; the help is about the policy, task and preset among them.
    """
    parser = commands.add_parser(
        "train",
        help="train a policy on a task",
        usage="%(prog)s POLICY TASK [--SETTING VALUE ...]",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if arguments[:1] == ["train"]:
        check_policy(arguments[1:])
        from fsrl_ext.cli.train_options import add_options

        add_options(parser, arguments[1:])
        parser.set_defaults(command=_train)


def settings_of_several(arguments: Sequence[str]) -> set[str]:
    """The options among the arguments that take several numbers."""
    options = {"--cost-limit", "--cost-bound"}
    if arguments[:1] == ["train"]:
        from fsrl_ext.cli.train_options import names_of_several

        options |= {f"--{name.replace('_', '-')}" for name in names_of_several()}
    return options


def _train(options: argparse.Namespace, command: str) -> int:
    if options.init_from is not None:
        check_checkpoint(options.init_from, name="init_from: ")
    from fsrl_ext.experiment import make_config, run
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.experiment.settings import list_settings

    given = vars(options)
    known = list_settings(options.policy)
    for name in given:
        having = [] if name in known else [x for x in algorithms() if name in list_settings(x)]
        if having:
            others = ", ".join(having[:4]) + (", ..." if len(having) > 4 else "")
            raise ValueError(
                f"{options.policy} has no setting --{name.replace('_', '-')}; it is one of {others}"
            )
    settings = {name: known[name].parse(given[name]) for name in known if name in given}
    config = make_config(preset=options.preset, **settings)
    done = run(
        config,
        out=options.out,
        run_name=options.run_name,
        show_progress=not options.quiet,
        command=command,
        init_from=options.init_from,
        cores=options.cores,
    )
    return print_result(done)
