"""The policies that the package ships: a checkpoint ``NAME.pt`` and a record ``NAME.json`` for each.

``benchmarks/make_zoo.py`` makes both from a finished run. The record holds what the final evaluation of the
checkpoint found, and the command that trained it.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from fsrl_ext.errors import CheckpointError

FOLDER = Path(__file__).parent
"""Where the files are."""

PREFIX = "zoo:"
"""What a name begins with where a run is expected."""


class UnknownZooPolicyError(CheckpointError):
    """The zoo has no policy of a name; the message names the nearest ones."""


@dataclass(frozen=True, kw_only=True)
class ZooPolicy:
    """A record of the zoo; the policy plays the seeds of final evaluations with deterministic actions.

    :param name: without the prefix.
    :param task: the task or family that it was trained on.
    :param cost_limit: one limit per cost.
    :param steps: step budget of its run.
    :param env_step: environment steps after which this policy of the run was saved.
    :param episodes: of the final evaluation.
    :param return_mean: mean return over these episodes.
    :param return_stderr: standard error of this mean.
    :param cost_mean: mean cost over these episodes, one per cost.
    :param cost_stderr: standard errors of these means.
    :param command: what trained it.
    :param trained_with: version of fsrl_ext that trained it.
    :param sha256: of the checkpoint that was evaluated.
    """

    name: str
    policy: str
    task: str
    cost_limit: tuple[float, ...]
    steps: int
    env_step: int
    seed: int
    episodes: int
    return_mean: float
    return_stderr: float
    cost_mean: tuple[float, ...]
    cost_stderr: tuple[float, ...]
    command: str
    trained_with: str
    sha256: str

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return FOLDER / f"{self.name}.pt"


def zoo_policies() -> list[ZooPolicy]:
    """The records of all policies, by name."""
    return [_record(name) for name in _names()]


def zoo_policy(name: str) -> ZooPolicy:
    """The record of a policy, with or without ``zoo:`` before its name.

    :raises UnknownZooPolicyError: if there is no such policy, naming the nearest ones.
    """
    return _record(_known(name))


def zoo_file(name: str) -> Path:
    """The checkpoint of a policy, with or without ``zoo:`` before its name.

    :raises UnknownZooPolicyError: if there is no such policy, naming the nearest ones.
    """
    return FOLDER / f"{_known(name)}.pt"


def _names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def _known(text: str) -> str:
    name, names = text.removeprefix(PREFIX), _names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise UnknownZooPolicyError(
            f"the zoo has no policy {name!r}; the nearest names are {', '.join(PREFIX + x for x in near)} "
            "('fsrl-ext zoo' lists all)"
        )
    return name


def _record(name: str) -> ZooPolicy:
    data = json.loads((FOLDER / f"{name}.json").read_text())
    several = {k: tuple(map(float, data[k])) for k in ("cost_limit", "cost_mean", "cost_stderr")}
    return ZooPolicy(name=name, **{**data, **several})
