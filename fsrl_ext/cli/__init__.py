"""The command line: ``fsrl-ext train | resume | evaluate | adapt | list``, one file for each command."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import fsrl_ext
from fsrl_ext.cli import adapt, evaluate, listing, resume, train
from fsrl_ext.cli.options import join_numbers
from fsrl_ext.cli.terminal import find_own_modules, one_line, prepare_streams


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    prepare_streams()
    try:
        find_own_modules()
        parser = _parser(arguments)
        options = parser.parse_args(join_numbers(arguments, train.settings_of_several(arguments)))
        return options.command(options, shlex.join(["fsrl-ext", *arguments]))
    except (ValueError, ImportError, FloatingPointError) as error:
        print(f"fsrl-ext: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    except BrokenPipeError:
        # The reader (head, less) has seen enough: nothing more may be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"fsrl-ext: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fsrl-ext: interrupted", file=sys.stderr)
        return 130


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    print(f"fsrl-ext: {category.__name__}: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line each; argparse's own come after the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(ValueError(message))} (see '{self.prog} --help')\n")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; the options of ``train`` depend on the policy among the arguments."""
    parser = _Parser(prog="fsrl-ext", description="Constrained (safe) reinforcement learning.")
    parser.add_argument("--version", action="version", version=f"fsrl_ext {fsrl_ext.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    train.add_command(commands, arguments)
    resume.add_command(commands)
    evaluate.add_command(commands)
    adapt.add_command(commands)
    listing.add_command(commands)
    return parser
