"""Options that a command does not have: one line with the nearest ones and the help that lists all."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Collection, Sequence
from typing import NoReturn


def nearest(word: str, known: Collection[str]) -> list[str]:
    """The known words that are spelt most like a word, at most two and the most similar one first."""
    return difflib.get_close_matches(word, known, n=2)


def refuse_unknown(
    parser: argparse.ArgumentParser, options: argparse.Namespace, unknown: Sequence[str]
) -> NoReturn:
    """Ends the process with exit code 2 and one line about what a parser did not know.

    :param parser: the complete parser of the command.
    :param options: what it knew.
    :param unknown: the other arguments, in their order.
    """
    option = next((x.partition("=")[0] for x in unknown if x.startswith("-")), None)
    if option is None:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    policy = _policy(options)
    near = _similar(option.lstrip("-").replace("_", "-"), _long_options(parser, policy))
    hint = f"; did you mean {' or '.join(f'--{x}' for x in near)}?" if near else ""
    help_of = parser.prog if policy is None else f"{parser.prog} {policy}"
    print(f"{parser.prog}: unknown option {option}{hint} (see '{help_of} --help')", file=sys.stderr)
    raise SystemExit(2)


def _policy(options: argparse.Namespace) -> str | None:
    """The policy of ``train``; ``None`` where the value of an unknown option took its place."""
    name: str | None = getattr(options, "policy", None)
    if name is not None:
        from fsrl_ext.experiment.registry import algorithms

        return name if name in algorithms() else None
    return None


def _long_options(parser: argparse.ArgumentParser, policy: str | None) -> list[str]:
    """The options of a command without their dashes; of ``train`` those that the policy has."""
    absent: set[str] = set()
    if policy is not None:
        from fsrl_ext.cli.train_options import all_settings
        from fsrl_ext.experiment.settings import list_settings

        absent = all_settings().keys() - list_settings(policy).keys()
    actions = (x for x in parser._actions if x.dest not in absent)
    return [name[2:] for action in actions for name in action.option_strings if name.startswith("--")]


def _similar(word: str, known: Sequence[str]) -> list[str]:
    """The option that is a word, those that are spelt like it, or else those that have it as a part."""
    if word in known:
        return [word]
    return nearest(word, known) or [x for x in known if word in x.split("-")][:3]
