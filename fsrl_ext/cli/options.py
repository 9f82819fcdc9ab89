"""Options that several commands have."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

STEP_OPTIONS = ("cost_margin", "kl_bound")
"""Settings of the steps of an adaptation that may differ from those of the training."""


def add_saved_policy(parser: argparse.ArgumentParser) -> None:
    """Adds the run or checkpoint file, which of its policies, and where the policy computes."""
    parser.add_argument("run", metavar="RUN", help="a run folder, a checkpoint file or zoo:NAME")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which policy of a run folder (default: best)",
    )
    parser.add_argument("--device", help="where the policy computes (default: as in training)")


def add_allow_import(parser: argparse.ArgumentParser) -> None:
    """Adds the permission to import the module of a saved task."""
    parser.add_argument(
        "--allow-import",
        action="store_true",
        help="import the modules of a saved task 'module:id' and of saved networks, which runs their code",
    )


def add_cores(parser: Any) -> None:
    """Adds the number of processor cores that a run uses to a parser or a group."""
    parser.add_argument(
        "--cores",
        type=int,
        metavar="N",
        help="processor cores that the run uses, which change none of its numbers; --threads are PyTorch's "
        "(default: those available to the process)",
    )


def add_step_options(parser: Any) -> None:
    """Adds the options of :data:`STEP_OPTIONS` to a parser or a group."""
    parser.add_argument(
        "--cost-margin",
        type=float,
        metavar="X",
        help="share of the limit that the steps keep free (default: as in training)",
    )
    parser.add_argument(
        "--kl-bound",
        type=float,
        metavar="X",
        help="KL divergence that a step may reach, in nats (default: as in training)",
    )


_NUMBER = re.compile(
    r"[(\[]?[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?[,)\]]*|[(\[]?(inf|nan)[,)\]]*", re.IGNORECASE
)


def join_numbers(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """The arguments, with the numbers after an option of several numbers as one: ``256 256`` as ``256,256``.

    :param names: the options, such as ``--cost-limit``; ``--cost-limit=5 20`` is joined, too. A number that
        is the name of a file or folder is none: it may be the run.
    """
    joined: list[str] = []
    several = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if several and _NUMBER.fullmatch(argument) and not os.path.exists(argument):
            separator = "" if joined[-1].endswith(",") else ","
            if joined[-1] in names:
                joined.append(argument)
            else:
                joined[-1] += separator + argument
        else:
            joined.append(argument)
            several = name in names and (bool(equals) or argument == name)
    return joined


def check_checkpoint(run: str, which: Literal["best", "last"] = "best", *, name: str = "") -> None:
    """Refuses a run or a file that is not there, before anything heavy is imported.

    :param name: what the error begins with.
    :raises NoCheckpointError: naming the file that is missing; of a folder of runs also the first of these.
    """
    from fsrl_ext.errors import NoCheckpointError
    from fsrl_ext.report.folder import checkpoint_file

    file = checkpoint_file(run, which)
    if not file.is_file():
        runs = sorted(x.parent for x in Path(run).glob("*/config.json")) if run else []
        hint = f"; {run} is a folder of runs, such as {runs[0]}" if runs else ""
        raise NoCheckpointError(f"{name}no checkpoint at {file}{hint}")


def check_new_files(*paths: str | None) -> None:
    """Refuses files that cannot be new ones, before the work whose results they are to hold.

    :raises ValueError: naming the file and what is wrong with it.
    """
    from fsrl_ext.report.files import check_new_file

    given = [check_new_file(path) for path in paths if path is not None]
    if len({path.absolute() for path in given}) < len(given):
        raise ValueError(f"{given[0]} cannot hold two results; name another file for one of them")


def parse_cost_limit(text: str | None, name: str = "cost_limit") -> tuple[float, ...] | None:
    """The numbers from the text of ``--cost-limit``, or of another option of one number per cost.

    :raises ValueError: for anything but a number, or several separated by commas.
    """
    from fsrl_ext.experiment.settings import list_settings

    setting = dataclasses.replace(list_settings()["cost_limit"], name=name)
    return None if text is None else setting.parse(text)
