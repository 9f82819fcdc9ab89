"""The algorithms by name: what each is made of, and where packages add their own.

Built-in algorithms are registered by :mod:`fsrl_ext.experiment.algorithms`. A package brings its own through
the entry-point group ``fsrl_ext.algorithms``; ``docs/your_own_algorithm.md`` shows how.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from tianshou.policy import BasePolicy

from fsrl_ext.errors import UnknownPolicyError, checked
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training_config import TrainingConfig

ENTRY_POINTS = "fsrl_ext.algorithms"
"""The entry-point group of packages that bring an algorithm."""

RESERVED = frozenset(
    (
        # Fields of ExperimentConfig.
        *("policy", "task", "costs", "cost_limit", "cost_limit_start", "cost_limit_decay_steps"),
        *("steps", "seed", "device", "threads"),
        *("selections", "selection_episodes", "selection_min_episodes", "final_episodes"),
        *("policy_config", "training"),
        # Options of fsrl-ext train.
        *("help", "out", "run_name", "init_from", "preset", "quiet", "command", "cores"),
        # Options of fsrl-ext sweep, and keys of its study files.
        *("policies", "tasks", "seeds", "cost_limits", "settings", "grid", "for", "study"),
        *("cpus_per_run", "gpus_per_run", "address", "dry_run"),
    )
)
"""Names that no setting of an algorithm may have, because they mean the same for all algorithms."""

TaskDefaults = tuple[str, str, Mapping[str, Any]]
"""Pattern of a suite, pattern of an environment id, and the settings of the tasks that match both."""


class NetworkBuilder(Protocol):
    """Makes fresh networks and optimisers, as keyword arguments of the policy."""

    def __call__(self, spec: TaskSpec, training: Any, *, num_costs: int, device: str) -> dict[str, Any]:
        """:param training: an instance of the algorithm's training class."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One row of the registry: what an algorithm is made of.

    The policy is called with the builder's networks and with ``action_space``, ``cost_limit``,
    ``max_episode_steps`` and ``config``, all by keyword. The settings of an experiment with this algorithm
    are the fields of ``config`` and of ``training``, and those of the run.

    :param summary: one line for ``fsrl-ext list``.
    :param policy: the class.
    :param config: class of the policy's settings, a frozen dataclass; each field has its help text as a
        docstring below it.
    :param training: class of the other settings, which also knows how data are collected and which trainer
        runs: a subclass of :class:`~fsrl_ext.experiment.TrainingConfig`.
    :param networks: makes fresh networks and optimisers from the task's shapes and the training settings.
    :param constrained: whether there is a cost limit; without one it is ``inf`` and cannot be set.
    :param constrained_as: for one without, the algorithm that the error about a cost limit points to.
    :param defaults: settings that differ from the defaults of the classes.
    :param task_defaults: settings for tasks that match ``(suite pattern, id pattern, settings)``; later rows
        win, and all win over ``defaults``.
    :param continuous_only: settings that have no effect on discrete actions; with such actions a value that
        is none of the algorithm's defaults is refused.
    :param presets: named bundles of settings, which win over the defaults; ``tuned`` is always there.
    :raises TypeError: for a policy, config or training class of another kind.
    :raises ValueError: if the config and the training class share the name of a setting, or if one of them
        has a setting with a name of :data:`RESERVED`.
    """

    summary: str
    policy: type[BasePolicy]
    config: type[Any]
    training: type[TrainingConfig]
    networks: NetworkBuilder
    constrained: bool = True
    constrained_as: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    task_defaults: Sequence[TaskDefaults] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    continuous_only: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, base in (("policy", BasePolicy), ("training", TrainingConfig)):
            value = getattr(self, name)
            if not (isinstance(value, type) and issubclass(value, base)):
                raise TypeError(f"{name} must be a subclass of {base.__name__}, got {value!r}")
        if not (isinstance(self.config, type) and dataclasses.is_dataclass(self.config)):
            raise TypeError(f"config must be a dataclass, got {self.config!r}")
        names = [{x.name for x in dataclasses.fields(part)} for part in (self.config, self.training)]
        if shared := sorted(names[0] & names[1]):
            raise ValueError(
                f"config and training must not share a setting, got {', '.join(shared)} in both "
                f"{self.config.__name__} and {self.training.__name__}"
            )
        for part, own in zip((self.config, self.training), names, strict=True):
            if taken := sorted(own & RESERVED):
                raise ValueError(
                    f"settings must not have the name of an option of all algorithms, got {', '.join(taken)} "
                    f"in {part.__name__}"
                )

    @property
    def takes_discrete_actions(self) -> bool:
        """Whether a task may have discrete actions: the attribute of that name of the policy, else false."""
        return bool(getattr(self.policy, "takes_discrete_actions", False))

    def build(
        self,
        spec: TaskSpec,
        *,
        config: Any,
        training: TrainingConfig,
        cost_limit: tuple[float, ...],
        device: str,
    ) -> BasePolicy:
        """A policy with fresh networks on the device.

        :param config: an instance of the policy's config class.
        """
        networks = self.networks(spec, training, num_costs=len(cost_limit), device=device)
        policy_class: Any = self.policy
        policy: BasePolicy = policy_class(
            **networks,
            action_space=spec.action_space,
            cost_limit=cost_limit,
            max_episode_steps=spec.max_episode_steps,
            config=config,
        )
        return policy.to(device)


_algorithms: dict[str, Algorithm] = {}
_entry_points_are_loaded = False


@checked()
def register_algorithm(name: str, algorithm: Algorithm) -> None:
    """Adds an algorithm for this process; see ``docs/your_own_algorithm.md`` for one that stays.

    :param name: what ``fsrl-ext train`` and :func:`~fsrl_ext.experiment.make_config` call it.
    :raises ValueError: if the name is taken, or no plain name of letters, digits and underscores.
    """
    _check_name(name, _algorithms)
    _algorithms[name] = algorithm


def algorithms() -> Mapping[str, Algorithm]:
    """All algorithms by name: built-in ones first, then those of other packages."""
    _load_entry_points()
    return MappingProxyType(_algorithms)


def algorithm(name: str) -> Algorithm:
    """The algorithm of a name.

    :raises UnknownPolicyError: if the name is unknown, suggesting the nearest.
    """
    known = algorithms()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UnknownPolicyError(f"unknown policy {name!r}; {hint}available: {', '.join(known)}")
    return known[name]


def _check_name(name: str, taken: Mapping[str, Algorithm]) -> None:
    if not name.isidentifier():
        raise ValueError(f"name must be of letters, digits and underscores, got {name!r}")
    if name in taken:
        raise ValueError(f"there is an algorithm {name!r} already; choose another name")


def _load_entry_points() -> None:
    """Registers the algorithms of other packages, at the first look-up.

    A package that cannot be loaded, or whose name is taken, is a warning: it does not stop the work with all
    others.
    """
    global _entry_points_are_loaded
    if _entry_points_are_loaded:
        return
    _entry_points_are_loaded = True  # before a package is loaded, which may look an algorithm up itself
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        package = point.dist.name if point.dist is not None else point.value
        try:
            row = point.load()
            if not isinstance(row, Algorithm):
                raise TypeError(f"{point.value} must be an Algorithm, got {row!r}")
            register_algorithm(point.name, row)
        except Exception as error:
            reason = str(error).strip().splitlines()
            warnings.warn(
                f"the algorithm {point.name!r} of the package {package} cannot be used "
                f"({type(error).__name__}: {reason[0] if reason else 'no reason given'})",
                stacklevel=2,
            )
