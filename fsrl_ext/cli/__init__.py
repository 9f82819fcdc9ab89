"""The command line, ``fsrl-ext COMMAND``, with one file for each command."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import fsrl_ext
from fsrl_ext.cli import (
    adapt,
    check,
    completion,
    diagnose,
    doctor,
    evaluate,
    export,
    listing,
    plot,
    report,
    resume,
    summarise,
    sweep,
    table,
    train,
    zoo,
)
from fsrl_ext.cli.failures import explained, interruption
from fsrl_ext.cli.options import join_numbers
from fsrl_ext.cli.signals import INTERRUPTED, ending_signals, exit_code
from fsrl_ext.cli.terminal import find_own_modules, one_line, prepare_streams
from fsrl_ext.cli.unknown import nearest, refuse_unknown

_EXAMPLE = """examples:
  fsrl-ext train cvpo SafetyBallCircle-v0 --cost-limit 10 --steps 200000
  fsrl-ext evaluate runs/SafetyBallCircle-v0-cvpo-seed0-1 --video ball.mp4
  fsrl-ext COMMAND --help     # every option of a command
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code.

    The code is 0 for success, 2 for input that cannot be used, and 1 for a run that could not go on. It is
    130 after Ctrl-C, and 128 and the signal's number after SIGTERM (143) and SIGHUP (129), which end a
    command as Ctrl-C does.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    threading.excepthook = _show_thread_error
    prepare_streams()
    with ending_signals() as received:
        try:
            find_own_modules()
            parser = _parser(arguments)
            joined = join_numbers(arguments, train.settings_of_several(arguments))
            options, unknown = parser.parse_known_args(joined)
            if unknown:
                name = next(x for x in arguments if not x.startswith("-"))
                refuse_unknown(_command_parser(name), options, unknown)
            code = options.command(options, shlex.join(["fsrl-ext", *arguments]))
            if code != INTERRUPTED:
                return code
        except BrokenPipeError:
            # The reader (head, less) has seen enough: nothing more may be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (Exception, KeyboardInterrupt) as error:
            # An interrupt in the middle of an import can come out as any error.
            if not received and not isinstance(error, KeyboardInterrupt):
                explanation = explained(error, next(iter(arguments), ""))
                if explanation is None:
                    raise
                print(explanation[0], file=sys.stderr)
                return explanation[1]
            print(interruption(error), file=sys.stderr)
        if argv is None:  # this process ends, and a second Ctrl-C changes nothing about that
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return exit_code(received)


def _show_thread_error(what: threading.ExceptHookArgs) -> None:
    """Shows in one line what the operating system refused to a thread, such as TensorBoard's writer."""
    if issubclass(what.exc_type, OSError):
        _show_warning(what.exc_value, what.exc_type)
    else:
        threading.__excepthook__(what)


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    print(f"fsrl-ext: {category.__name__}: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line each; argparse's own come after the whole usage."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names the choice that is nearest to a misspelt one, before argparse's list of all."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            near = nearest(str(value), [str(x) for x in action.choices or ()])
            hint = f"; did you mean {near[0]}?" if near else ""
            raise argparse.ArgumentError(action, f"{error.message}{hint}") from None

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(ValueError(message))} (see '{self.prog} --help')\n")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; the options of ``train`` depend on the policy among the arguments."""
    parser = _Parser(
        prog="fsrl-ext",
        description="Constrained (safe) reinforcement learning.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fsrl_ext {fsrl_ext.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    train.add_command(commands, arguments)
    resume.add_command(commands)
    sweep.add_command(commands, arguments)
    evaluate.add_command(commands)
    export.add_command(commands)
    check.add_command(commands)
    diagnose.add_command(commands)
    doctor.add_command(commands)
    adapt.add_command(commands)
    table.add_command(commands)
    plot.add_command(commands)
    report.add_command(commands)
    summarise.add_command(commands)
    listing.add_command(commands)
    zoo.add_command(commands)
    completion.add_command(commands, _command_parser)
    return parser


def _command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command with all of its options, those that take imports among them."""
    commands = next(x for x in _parser([name])._actions if isinstance(x, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = commands.choices[name]
    return parser
