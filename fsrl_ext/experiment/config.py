"""What one training run is: an algorithm on a task, with a cost limit, a seed and all other settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from fsrl_ext.cost_names import checked_names
from fsrl_ext.env.suite_tasks import canonical_id
from fsrl_ext.errors import CostCountError, check_argument, check_fields, check_types
from fsrl_ext.experiment.former import from_saved
from fsrl_ext.experiment.registry import algorithm, algorithms
from fsrl_ext.experiment.training_config import OWN_NETWORKS, TrainingConfig, named
from fsrl_ext.functional.returns import as_cost_limits, decayed_cost_limit
from fsrl_ext.policy.base import PolicyConfig
from fsrl_ext.report.files import from_json
from fsrl_ext.report.records import CONFIG
from fsrl_ext.report.structure import check

LIMIT_SCHEDULE = ("cost_limit_start", "cost_limit_decay_steps")
"""Fields that only algorithms with a constraint have a use for."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One training run: a policy on a task, with a cost limit and a seed.

    :param policy_config: the policy's own settings; those of its config class if not given.
    :param training: the other settings; those of the algorithm's training class if not given.
    :raises ValueError: for values that cannot be used, naming them.
    """

    policy: str = "cvpo"
    """Name of the policy, as ``fsrl-ext list`` prints it."""
    task: str
    """Environment id; for meta-learners the name of a family, without level."""
    costs: tuple[str, ...] | None = None
    """Names of the costs that have a limit each, such as hazards,vases of SafetyPointGoal2-v0. A prefix of
    several costs stands for their sum. none: the task's own cost, which is the sum of all costs in
    safety-gymnasium, or all costs of a task that reports several."""
    cost_limit: tuple[float, ...]
    """Cost that an episode may have, in the unit limit_unit, one number per cost."""
    cost_limit_start: tuple[float, ...] | None = None
    """A looser limit to train with at first; it decays to cost_limit. One number per cost."""
    cost_limit_decay_steps: int = 100_000
    """Environment steps after which 99% of the decay is done; unused without cost_limit_start."""
    steps: int = 150_000
    """Environment steps, warm-up included."""
    seed: int = 0
    """Seed of networks, exploration and training environments."""
    selections: int = 50
    """How often, evenly over the run, the policy is tested and the best feasible one kept. Short runs, whose
    test episodes would take more steps than training, are tested less often."""
    selection_episodes: int = 10
    """Episodes of each selection."""
    selection_min_episodes: int = 5
    """Episodes after which a selection may end early, when it is clear that the policy will not be the best;
    selection_episodes or more for never."""
    final_episodes: int = 50
    """Episodes of the final evaluation of the best and of the last policy."""
    device: str = "cpu"
    """Device of the networks."""
    threads: int = 1
    """CPU threads of torch."""
    policy_config: PolicyConfig = None  # type: ignore[assignment]
    training: TrainingConfig = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        check_argument("policy", self.policy, str)
        check_argument("task", self.task, str)
        object.__setattr__(self, "task", canonical_id(self.task))
        row = algorithm(self.policy)
        for name, cls in (("policy_config", row.config), ("training", row.training)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, cls())
            if type(getattr(self, name)) is not cls:
                raise ValueError(
                    f"{name} must be a {cls.__name__} for {self.policy}, "
                    f"got {type(getattr(self, name)).__name__}"
                )
        self._check_limits(constrained=row.constrained, counterpart=row.constrained_as)
        check_types(self)
        check_fields(
            self,
            seed=("seed",),
            at_least_one=(
                "selections",
                "selection_episodes",
                "selection_min_episodes",
                "final_episodes",
                "threads",
                "cost_limit_decay_steps",
            ),
        )
        for name, most in (("selection_episodes", 10**6), ("final_episodes", 10**6), ("threads", 4096)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most:,}, got {getattr(self, name)}")
        self._check_recurrent()
        self.training.check_steps(self.steps)
        self.training.check_policy(self.policy_config)
        if self.training.action_repeat > 1 and self.policy_config.limit_unit == "discounted":
            raise ValueError(
                "action_repeat must be 1 with limit_unit='discounted', which discounts by environment steps, "
                f"got {self.training.action_repeat}"
            )

    def _check_recurrent(self) -> None:
        if self.training.network != "gru" or self.training.can_be_recurrent:
            return
        able = [name for name, row in algorithms().items() if row.training.can_be_recurrent]
        raise ValueError(
            f"network must be 'mlp' or 'cnn' for {self.policy}, got 'gru'; recurrent networks are for "
            f"{', '.join(able)}"
        )

    def _check_limits(self, *, constrained: bool, counterpart: str | None) -> None:
        object.__setattr__(self, "cost_limit", as_cost_limits(self.cost_limit))
        if self.costs is not None:
            object.__setattr__(self, "costs", checked_names(self.costs))
            if len(self.costs) != len(self.cost_limit):
                several = f"{len(self.costs)} numbers, one for each of the costs {', '.join(self.costs)}"
                wanted = several if len(self.costs) > 1 else f"1 number for the cost {self.costs[0]}"
                got = ",".join(f"{x:g}" for x in self.cost_limit)
                raise CostCountError(f"cost_limit must have {wanted}, got {got}")
        if self.cost_limit_start is not None:
            object.__setattr__(
                self, "cost_limit_start", as_cost_limits(self.cost_limit_start, "cost_limit_start")
            )
            if len(self.cost_limit_start) != len(self.cost_limit):
                raise CostCountError(
                    f"cost_limit_start must have {len(self.cost_limit)} numbers as cost_limit has, "
                    f"got {len(self.cost_limit_start)}"
                )
            for start, end in zip(self.cost_limit_start, self.cost_limit, strict=True):
                if math.isinf(start) and not math.isinf(end):
                    raise ValueError(
                        "cost_limit_start must be finite where cost_limit is, because infinity does not "
                        f"decay, got {self.cost_limit_start}"
                    )
        if constrained:
            return
        if any(math.isfinite(x) for x in self.cost_limit):
            hint = f"; {counterpart} has one" if counterpart else ""
            raise ValueError(
                f"cost_limit must be inf (one for each cost) for {self.policy}, which has no constraint, "
                f"got {self.cost_limit}{hint}"
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in LIMIT_SCHEDULE and value != field.default:
                raise ValueError(f"{field.name} is not used by {self.policy}, got {value!r}")

    @property
    def env_id(self) -> str:
        """The environment that the policy is judged in: of a family, the task of level 0 (or its lowest)."""
        return self.training.judged_task(self.task)

    @property
    def num_envs(self) -> int:
        """Training environments, wherever they run."""
        return self.training.num_envs

    def as_dict(self) -> dict[str, Any]:
        """Plain data: numbers, text, lists and dictionaries; without ``costs`` if they have no names."""
        data = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.costs is None:
            del data["costs"]
        return data

    @property
    def env_arguments(self) -> dict[str, Any]:
        """Arguments of :func:`fsrl_ext.env.make_joint` beside the id, in training and in every evaluation."""
        return {**self.training.env_arguments, **named(self.costs)}

    @property
    def imports_modules(self) -> bool:
        """Whether task or networks come from a module that the settings name, and that has to be imported."""
        return ":" in self.env_id or any(getattr(self.training, name) is not None for name in OWN_NETWORKS)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ExperimentConfig:
        """The inverse of :meth:`as_dict`, also after a round trip through the JSON of a run folder.

        Infinity may be the number, or the text that :mod:`fsrl_ext.report.files` writes for it.

        A file without ``selection_min_episodes`` is of a version that always played all episodes.

        :raises ValueError: for settings that are missing, that the algorithm does not have, or that have
            another type; see :mod:`fsrl_ext.experiment.former` for what files of version 0.1.0 may have.
        """
        data = from_json(data)
        check(data, CONFIG)
        data.setdefault("selection_min_episodes", data["selection_episodes"])
        row = algorithm(data["policy"])
        return cls(
            **{
                **data,
                "policy_config": from_saved(row.config, data["policy_config"]),
                "training": from_saved(row.training, data["training"]),
            }
        )

    def scheduled_cost_limit(self, env_step: int) -> tuple[float, ...]:
        """The limit to train with at an environment step."""
        if self.cost_limit_start is None:
            return self.cost_limit
        pairs = zip(self.cost_limit_start, self.cost_limit, strict=True)
        return tuple(decayed_cost_limit(*pair, env_step, self.cost_limit_decay_steps) for pair in pairs)

    def digest(self) -> str:
        """Short hash of everything that decides the result, seed apart."""
        data = self.as_dict()
        del data["seed"], data["threads"]
        if self.selection_min_episodes >= self.selection_episodes:
            del data["selection_min_episodes"]  # as in versions that always played all episodes
        for name, former in (
            *(("agents", "shared"), ("cost_unit", "team"), ("actor", None), ("critic", None)),
            *(("network", "mlp"), ("action_repeat", 1), ("gru_size", 64), ("bptt_steps", 32)),
            ("mean_range", 1.0),
        ):
            if name in data["training"] and data["training"][name] == former:
                del data["training"][name]  # as in versions without this setting
        settings = data["policy_config"]
        if "deterministic_eval" in settings and settings["deterministic_eval"] is None:
            # As in versions whose on-policy algorithms had no such setting, and whose CVPO had true.
            if "gae_lambda" in settings:
                del settings["deterministic_eval"]
            else:
                settings["deterministic_eval"] = True
        if data["policy_config"].get("limit_unit") == "episode":
            del data["policy_config"]["limit_unit"]  # as in versions that had no other unit
        # Not strict JSON, so that a config has the digest that it had in version 0.1.0.
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
