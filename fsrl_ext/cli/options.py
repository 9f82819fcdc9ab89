"""Options that several commands have."""

from __future__ import annotations

import argparse
from typing import Any

STEP_OPTIONS = ("cost_margin", "kl_bound")
"""Settings of the steps of an adaptation that may differ from those of the training."""


def add_saved_policy(parser: argparse.ArgumentParser) -> None:
    """Adds the run or checkpoint file, which of its policies, and where the policy computes."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
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
        help="import the module of a saved task 'module:id', which runs its code",
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


def parse_cost_limit(text: str | None) -> tuple[float, ...] | None:
    """The limits from the text of ``--cost-limit``.

    :raises ValueError: for anything but a number, or several separated by commas.
    """
    from fsrl_ext.experiment.settings import list_settings

    return None if text is None else list_settings()["cost_limit"].parse(text)
