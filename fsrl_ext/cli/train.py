"""``fsrl-ext train``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from fsrl_ext.cli.closing import print_result


def add_command(commands: Any, arguments: Sequence[str]) -> None:
    """Adds the command; its options are added only if the arguments call it, since they take imports.

    :param arguments: all of the command line; the help is about the policy that is named among them.
    """
    if "train" in arguments:
        _add_options(commands.add_parser("train", help="train a policy on a task"), arguments)
    else:
        commands.add_parser("train", help="train a policy on a task")


def _add_options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    from fsrl_ext.experiment.defaults import TUNED
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.experiment.settings import list_settings

    rows = algorithms()
    shown = next((x for x in arguments if x in rows), "cvpo")
    parser.description = (
        "Train a policy on a task. The run ends with an evaluation, a table and a picture. The settings and "
        f"defaults below are those of {shown}; 'fsrl-ext train POLICY --help' shows those of another policy."
    )
    parser.add_argument("policy", help="cvpo, ...: 'fsrl-ext list policies' lists them")
    parser.add_argument("task", help="an environment id: 'fsrl-ext list tasks' lists them")
    parser.add_argument("--out", default="runs", help="the run folder's parent (default: runs)")
    parser.add_argument("--run-name", help="the run folder's name (default: a fresh one)")
    parser.add_argument(
        "--init-from", metavar="RUN", help="start from the policy of a run folder or checkpoint file"
    )
    presets = ", ".join([TUNED, *rows[shown].presets])
    parser.add_argument("--preset", default=TUNED, help=f"a bundle of settings: {presets} (default: {TUNED})")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    titles = {"run": "the run", "policy": "the policy", "training": "networks and training loop"}
    groups = {key: parser.add_argument_group(title) for key, title in titles.items()}
    settings = list_settings(shown)
    # The settings of all policies are read, so that an error can say that this policy does not have one.
    for name, setting in {k: v for other in rows for k, v in list_settings(other).items()}.items():
        if name not in ("policy", "task"):
            groups[setting.section].add_argument(
                f"--{name.replace('_', '-')}",
                default=argparse.SUPPRESS,
                metavar="VALUE",
                help=settings[name].help.replace("%", "%%") if name in settings else argparse.SUPPRESS,
            )
    parser.set_defaults(command=_train)


def _train(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment import make_config, run
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.experiment.settings import list_settings

    given = vars(options)
    known = list_settings(options.policy)
    for name in given:
        if name not in known and any(name in list_settings(other) for other in algorithms()):
            raise ValueError(f"{options.policy} has no setting --{name.replace('_', '-')}")
    settings = {name: known[name].parse(given[name]) for name in known if name in given}
    config = make_config(preset=options.preset, **settings)
    done = run(
        config,
        out=options.out,
        run_name=options.run_name,
        show_progress=not options.quiet,
        command=command,
        init_from=options.init_from,
    )
    return print_result(done)
