"""What an experiment is made of, as frozen dataclasses that check themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from fsrl_ext.env.meta import find_family
from fsrl_ext.errors import check_fields
from fsrl_ext.experiment.registry import CONSTRAINED, policy_entry
from fsrl_ext.functional.returns import as_cost_limits, decayed_cost_limit
from fsrl_ext.net.actor import Covariance
from fsrl_ext.policy import CVPOConfig
from fsrl_ext.policy.base import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Networks, optimisers, buffer and loop."""

    hidden_sizes: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of actor and critics."""
    critic_hidden_sizes: tuple[int, ...] | None = None
    """Widths of the critics' hidden layers, if they differ."""
    covariance: Covariance = "diagonal"
    """The actor's Gaussian: ``diagonal`` or ``full``."""
    initial_std: float = 0.8
    """Standard deviation of an untrained actor, in units of the normalised action box."""
    reward_ensemble: int = 1
    """Reward critics; their minimum is used."""
    cost_ensemble: int = 1
    """Critics for each cost; see the policy's ``cost_reduction``."""
    shared_body: bool = False
    """Reward and cost critics share their hidden layers."""
    actor_lr: float = 5e-4
    """Adam learning rate of the actor."""
    critic_lr: float = 1e-3
    """Adam learning rate of the critics."""
    critic_optimiser: Literal["adam", "lbfgs"] = "adam"
    """Optimiser of an on-policy critic: Adam on minibatches, or 25 iterations of L-BFGS on all data."""
    batch_size: int = 128
    """Transitions of a gradient step."""
    buffer_size: int = 200_000
    """Transitions that the replay buffer holds."""
    num_envs: int = 10
    """Training environments, when they run in the collector's own process."""
    workers: int = 0
    """Processes for the training environments, one environment each instead of num_envs; 0 for none."""
    worker_type: Literal["shmem", "subproc", "ray"] = "shmem"
    """How workers hand over observations: Tianshou's ``ShmemVectorEnv``, ``SubprocVectorEnv`` or
    ``RayVectorEnv`` (needs Ray)."""
    collect_ahead: bool = False
    """Collect in another process while this one learns; the policy that acts is then one collect old."""
    step_per_collect: int = 1000
    """Environment steps collected between updates, at most."""
    update_per_step: float = 0.4
    """Gradient steps per environment step."""
    repeat_per_collect: int = 10
    """Passes over the data of a collect in on-policy learning."""
    warmup_steps: int = 0
    """Environment steps with random actions at the start, counted in the budget; none in a run that starts
    from a saved policy."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            positive=("initial_std", "actor_lr", "critic_lr", "update_per_step"),
            non_negative=("warmup_steps", "workers"),
            at_least_one=(
                "reward_ensemble",
                "cost_ensemble",
                "batch_size",
                "buffer_size",
                "num_envs",
                "step_per_collect",
                "repeat_per_collect",
            ),
            choices={
                "covariance": ("diagonal", "full"),
                "worker_type": ("shmem", "subproc", "ray"),
                "critic_optimiser": ("adam", "lbfgs"),
            },
        )
        for name in ("hidden_sizes", "critic_hidden_sizes"):
            sizes = getattr(self, name)
            if sizes is not None and (not sizes or any(x < 1 for x in sizes)):
                raise ValueError(f"{name} must be whole numbers >= 1, got {sizes}")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One training run: a policy on a task, with a cost limit and a seed.

    :raises ValueError: for values that cannot be used, naming them.
    """

    policy: str = "cvpo"
    """Name of the policy, as ``fsrl-ext list`` prints it."""
    task: str
    """Environment id; for meta-learners the name of a family, without level."""
    cost_limit: tuple[float, ...]
    """Undiscounted cost that an episode may have, one number per cost."""
    cost_limit_start: tuple[float, ...] | None = None
    """A looser limit to train with at first; it decays to cost_limit. One number per cost."""
    cost_limit_decay_steps: int = 100_000
    """Environment steps after which 99% of the decay is done; unused without cost_limit_start."""
    steps: int = 150_000
    """Environment steps, warm-up included."""
    seed: int = 0
    """Seed of networks, exploration and training environments."""
    selections: int = 50
    """How often, evenly over the run, the policy is tested and the best feasible one kept. Less often in
    short runs, where the test episodes would take more steps than training."""
    selection_episodes: int = 10
    """Deterministic episodes of each selection."""
    final_episodes: int = 50
    """Deterministic episodes of the final evaluation of the best and of the last policy."""
    device: str = "cpu"
    """Where the networks live."""
    threads: int = 1
    """CPU threads of torch."""
    policy_config: PolicyConfig = field(default_factory=CVPOConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cost_limit", as_cost_limits(self.cost_limit))
        if self.cost_limit_start is not None:
            object.__setattr__(self, "cost_limit_start", as_cost_limits(self.cost_limit_start))
            if len(self.cost_limit_start) != len(self.cost_limit):
                raise ValueError(
                    f"cost_limit_start must have {len(self.cost_limit)} numbers as cost_limit has, "
                    f"got {len(self.cost_limit_start)}"
                )
        check_fields(
            self,
            non_negative=("seed",),
            at_least_one=(
                "steps",
                "selections",
                "selection_episodes",
                "final_episodes",
                "threads",
                "cost_limit_decay_steps",
            ),
        )
        if self.steps <= self.training.warmup_steps:
            raise ValueError(
                f"steps must be more than warmup_steps={self.training.warmup_steps}, "
                f"in which nothing is learnt, got {self.steps}"
            )
        self._check_policy()

    def _check_policy(self) -> None:
        """The policy's own config, and nothing set that the policy has no use for."""
        entry = policy_entry(self.policy)
        if type(self.policy_config) is not entry.config:
            raise ValueError(
                f"policy_config must be a {entry.config.__name__} for {self.policy}, "
                f"got {type(self.policy_config).__name__}"
            )
        if not entry.constrained and any(math.isfinite(x) for x in self.cost_limit):
            raise ValueError(
                f"cost_limit must be inf (one for each cost) for {self.policy}, which has no constraint, "
                f"got {self.cost_limit}; {CONSTRAINED.get(self.policy, f'{self.policy}_lag')} has one"
            )
        for part in (self, self.policy_config, self.training):
            for unused in dataclasses.fields(part):
                value = getattr(part, unused.name)
                if unused.name in entry.unused and value != unused.default:
                    raise ValueError(f"{unused.name} is not used by {self.policy}, got {value!r}")

    @property
    def env_id(self) -> str:
        """The environment that the policy is judged in: of a family, the task of level 0 (or its lowest)."""
        return judged_task(self.policy, self.task)

    @property
    def num_envs(self) -> int:
        """Training environments, wherever they run."""
        return self.training.workers or self.training.num_envs

    def as_dict(self) -> dict[str, Any]:
        """Plain data: numbers, text, lists and dictionaries."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ExperimentConfig:
        """The inverse of :meth:`as_dict`, also after a round trip through JSON."""
        data = dict(data)
        data["policy_config"] = policy_entry(data["policy"]).config(**data["policy_config"])
        training = dict(data["training"])
        training["hidden_sizes"] = tuple(training["hidden_sizes"])
        if training.get("critic_hidden_sizes") is not None:
            training["critic_hidden_sizes"] = tuple(training["critic_hidden_sizes"])
        data["training"] = TrainingConfig(**training)
        return cls(**data)

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
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def judged_task(policy: str, task: str) -> str:
    """The environment id that a policy for a task is judged in; see :attr:`ExperimentConfig.env_id`.

    :raises UnknownFamilyError: if the policy learns from a family and there is none of that name.
    """
    if policy_entry(policy).kind != "meta":
        return task
    family = find_family(task)
    return family.id(min(family.levels))
