"""Rollout films in the page: which run of a row is filmed, and how the film gets into the file."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsrl_ext.cost_names import labelled
from fsrl_ext.report.folder import RunFolder
from fsrl_ext.report.study.run import StudyRun
from fsrl_ext.report.study.select import Group

Film = Callable[[Path, Path], Mapping[str, Any]]
"""Films the first episode of the final evaluation of a run folder's best policy into a new ``.mp4`` file.

It returns at least the episode's ``return`` and ``cost``, one number per cost.
"""

_LEAST = 100_000
"""Bytes below which no further film is tried."""


@dataclass(frozen=True)
class Rollout:
    """A film of a row, or why there is none.

    :param source: the film as a ``data:`` address; empty without one.
    :param text: what the film shows, or the reason.
    """

    group: Group
    source: str
    text: str


def film_groups(groups: Sequence[Group], film: Film, room: int) -> list[Rollout]:
    """Films one run of each group, until the films fill the room.

    Whatever an environment raises while it is drawn is the reason in the text, because a page without a film
    is better than no page.

    :param groups: in the order in which they are filmed.
    :param room: bytes that all films together may have in the page.
    """
    rollouts = []
    for member in groups:
        source, text = _film(member, film, room)
        room -= len(source)
        rollouts.append(Rollout(member, source, text))
    return rollouts


def _film(member: Group, film: Film, room: int) -> tuple[str, str]:
    run = _filmed(member)
    if run is None:
        return "", "not filmed: no run folder of this row has its best policy (checkpoints/best.pt)"
    if room < _LEAST:
        return "", _too_large(run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        try:
            episode = film(run.path, path)
        except Exception as error:  # an environment and its OpenGL library have errors of their own
            reason = " ".join(str(error).split()) or type(error).__name__
            return "", f"seed {run.seed} could not be filmed: {reason}"
        source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    if len(source) > room:
        return "", _too_large(run)
    best = run.best
    costs = best.cost_mean if run.limit_unit == "episode" else best.other_cost_mean  # as the film counts them
    means = _outcome(best.return_mean, costs or (), run.cost_names if costs else None)
    return source, (
        f"seed {run.seed}, best policy, first episode of the final evaluation: "
        f"{_outcome(episode['return'], episode['cost'], run.cost_names)} (mean of all its episodes: {means})"
    )


def _outcome(value: float, costs: Sequence[float], names: Sequence[str] | None) -> str:
    return f"return {value:.1f}, cost {' / '.join(labelled([f'{x:.1f}' for x in costs], names))}"


def _too_large(run: StudyRun) -> str:
    return (
        f"seed {run.seed} is left out, because the page would become too large; "
        f"'fsrl-ext evaluate {run.path} --video FILE.mp4' films it"
    )


def _filmed(member: Group) -> StudyRun | None:
    """The run of the highest return among those with a feasible best policy, or else of the least cost."""
    there = [run for run in member.runs if run.path.is_dir() and RunFolder(run.path).best.is_file()]
    feasible = [run for run in there if run.best.feasible]
    if feasible:
        return max(feasible, key=lambda run: run.best.return_mean)
    return min(there, key=lambda run: sum(run.best.cost_mean), default=None)
