"""How an algorithm is trained: the base class of the training settings.

A family of algorithms has a subclass in ``fsrl_ext/experiment/algorithms/``. Its fields are the settings of
networks, optimisers, data and loop; its methods say which environment the policy is judged in, how data are
collected and which trainer runs. What a class has no field for cannot be set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
from tianshou.env import BaseVectorEnv, DummyVectorEnv
from tianshou.policy import BasePolicy

from fsrl_ext.data import AheadCollector, CostCollector, CostVectorReplayBuffer, MetaCollector, RayCollector
from fsrl_ext.data.env_workers import build_grouped_vector, build_vector
from fsrl_ext.env import env_fn, list_tasks
from fsrl_ext.env.contract import CostUnit
from fsrl_ext.env.meta import FamilyError, find_family, list_families
from fsrl_ext.errors import check_argument, check_fields, check_types
from fsrl_ext.experiment.network_path import as_path
from fsrl_ext.policy.base import PolicyConfig
from fsrl_ext.trainer.cost_trainer import CostTrainer
from fsrl_ext.trainer.seeds import collecting_process_seed

WorkerType = Literal["process", "ray"]
AgentPolicies = Literal["shared", "independent"]
NetworkKind = Literal["mlp", "cnn", "gru"]
OWN_NETWORKS = ("actor", "critic")
"""Settings that name code of the user's, which builds networks."""
MAX_ENVS = 10_000
"""Training environments, at most."""
SIMULATORS = ("bullet-safety-gym", "safety-gymnasium", "safety-gymnasium-agents", "meta")
"""Suites whose environments simulate physics."""
TrainCollector = CostCollector | AheadCollector | MetaCollector[Any]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(ABC):
    """Settings of networks, optimisers, data and loop that every algorithm has.

    Subclasses are frozen, keyword-only dataclasses, too; each field has its help text as a docstring below.

    :raises ValueError: for values that cannot be used, naming them.
    """

    can_be_recurrent: ClassVar[bool] = False
    """Whether ``network`` may be ``gru``."""

    hidden_sizes: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of actor and critics."""
    critic_hidden_sizes: tuple[int, ...] | None = None
    """Widths of the critics' hidden layers, if they differ."""
    actor: str | None = None
    """Import path of a function of your own, my_pkg.nets:make_actor, which is called with the number of
    observations and returns a network from observations to features, in place of the actor's hidden layers.
    In Python also the function itself. With images it is called with their shape, (channels, height, width),
    and takes the place of the convolutions."""
    critic: str | None = None
    """Import path of a function likewise, my_pkg.nets:make_critic, which is called once for each critic with
    the number of its inputs: the observations and, in off-policy learning, the actions after them. With
    images it is called once, as that of the actor."""
    shared_body: bool = False
    """Reward and cost critics share their hidden layers."""
    critic_lr: float = 1e-3
    """Adam learning rate of the critics."""
    num_envs: int = 10
    """Training environments."""
    workers: int | Literal["auto"] = "auto"
    """Processes that serve the training environments, which changes no number of a run; 0 for the process
    that learns. ``auto``: in on-policy and meta-learning on the tasks of both suites one for each core, of
    which the process that learns is one; else 0. With worker_type ray, the actors that share out the
    environments, which are part of what a run is; ``auto``: one for each environment."""
    worker_type: WorkerType = "process"
    """Where the environments run: in processes of this machine, or in Ray actors on the machines of a cluster
    (needs Ray), each with a copy of the policy, and a message per collect."""
    step_per_collect: int = 1000
    """Environment steps collected between updates, at most."""

    def __post_init__(self) -> None:
        for name in OWN_NETWORKS:
            object.__setattr__(self, name, as_path(name, getattr(self, name)))
        check_types(self)
        if self.critic is not None and self.shared_body:
            raise ValueError("shared_body must be false with a critic of your own, got true")
        for name in ("hidden_sizes", "critic_hidden_sizes"):
            if getattr(self, name) == ():
                raise ValueError(f"{name} must be whole numbers >= 1, got none")
        check_fields(
            self,
            positive=("critic_lr",),
            at_least_one=("num_envs", "step_per_collect", "hidden_sizes", "critic_hidden_sizes"),
            choices={"worker_type": ("process", "ray")},
        )
        if self.num_envs > MAX_ENVS:
            raise ValueError(f"num_envs must be at most {MAX_ENVS:,}, got {self.num_envs}")
        if self.workers != "auto" and not 0 <= self.workers <= MAX_ENVS:
            raise ValueError(f"workers must be auto or from 0 to {MAX_ENVS:,}, got {self.workers}")
        if self.uses_ray and not 1 <= self.ray_actors <= self.num_envs:
            raise ValueError(
                f"workers must be auto or from 1 to num_envs={self.num_envs} with worker_type='ray', "
                f"got {self.workers}"
            )

    @property
    def agents(self) -> AgentPolicies:
        """How the policies of several agents are related; a field of the algorithms that can train them."""
        return "shared"

    @property
    def cost_unit(self) -> CostUnit:
        """What has a cost limit, a team or each agent; a field of the algorithms that can train them."""
        return "team"

    @property
    def action_repeat(self) -> int:
        """Steps that an action lasts for; a field of the algorithms that can decide less often."""
        return 1

    @property
    def env_arguments(self) -> dict[str, Any]:
        """Arguments of :func:`fsrl_ext.env.make_joint` that these settings decide."""
        return {"cost_unit": self.cost_unit, "action_repeat": self.action_repeat}

    @property
    def network(self) -> NetworkKind:
        """The kind of the networks; a field of the algorithms that can see images."""
        return "mlp"

    @property
    def uses_ray(self) -> bool:
        """Whether training data are collected in Ray actors."""
        return self.worker_type == "ray"

    @property
    def ray_actors(self) -> int:
        """The Ray actors that share out the training environments."""
        return self.num_envs if self.workers == "auto" else self.workers

    def env_processes(self, cores: int, task: str) -> int:
        """The processes beside the one that learns, which serve the training environments; 0 for none.

        :param cores: that the run uses.
        :param task: of the run.
        """
        return 0 if self.workers == "auto" else min(self.workers, self.num_envs)

    @property
    def max_cores(self) -> int:
        """The most cores that a run has work for: one for learning, one for the selections, and one for each
        training environment."""
        return 2 + self.num_envs

    def busy_processes(self, cores: int) -> int:
        """The processes that compute at a time while a run collects and learns.

        :param cores: that the run uses.
        """
        if self.uses_ray:  # the actors are on the machines of a cluster
            return 1
        # What "auto" stands for never exceeds the cores.
        return 1 if self.workers == "auto" else max(min(self.workers, self.num_envs), 1)

    @classmethod
    def judged_task(cls, task: str) -> str:
        """The environment id that a policy for the task is judged in: the task itself.

        :raises FamilyError: for the name of a family of tasks.
        """
        if task in list_families():
            family = find_family(task)
            raise FamilyError(
                f"{task!r} is a family of tasks, on which meta_cpo and the other meta-learners train; one of "
                f"its tasks is {family.id(min(family.levels))}"
            )
        return task

    def check_steps(self, steps: int) -> None:
        """Checks the length of a run in environment steps.

        :raises ValueError: if nothing would be learnt in so many steps.
        """
        check_argument("steps", steps, int, "at_least_one")

    def check_policy(self, policy_config: PolicyConfig) -> None:  # noqa: B027 - most have nothing to check
        """Checks the settings that the policy's own settings bound.

        :raises ValueError: for a setting that cannot work with the policy's.
        """

    @abstractmethod
    def collector(
        self,
        policy: BasePolicy,
        task: str,
        *,
        num_costs: int,
        discount: float | tuple[float, ...],
        seed: int,
        cores: int,
        costs: tuple[str, ...] | None = None,
    ) -> TrainCollector:
        """A collector of training data, with its environments and its buffer.

        :param costs: names of the costs, for :func:`fsrl_ext.env.make`; given only to a run that has names.
        :param discount: of the discounted returns and costs in the statistics; one number for each of them if
            reward and costs have different discounts.
        :param seed: of the run; the environments are seeded by the trainer.
        :param cores: that the run uses; the collected data are the same with any number of them.
        :raises ImportError: for Ray workers without Ray.
        :raises ValueError: for more Ray workers than the cluster has CPUs.
        """

    def ray_collector(
        self,
        policy: BasePolicy,
        task: str,
        buffer: CostVectorReplayBuffer,
        *,
        ahead: bool,
        discount: float | tuple[float, ...],
        seed: int,
        costs: tuple[str, ...] | None = None,
    ) -> RayCollector:
        """A collector whose environments run in Ray actors; arguments are those of :meth:`collector`.

        :param ahead: whether the acting policy may be one collect old.
        """
        return RayCollector(
            policy,
            env_fn(task, **self.env_arguments, **named(costs)),
            buffer,
            actors=self.ray_actors,
            ahead=ahead,
            seed=collecting_process_seed(seed),
            discount=discount,
            replayable=True,
        )

    @abstractmethod
    def trainer(
        self,
        policy: BasePolicy,
        collector: Any,
        *,
        task: str,
        seed: int,
        steps: int,
        selections: int,
        warm_start: bool,
        **shared: Any,
    ) -> CostTrainer:
        """The trainer of a run.

        :param collector: made by :meth:`collector`.
        :param steps: environment steps of the run.
        :param selections: how often, evenly over the run, the policy is tested.
        :param warm_start: whether the policy was trained before.
        :param shared: arguments of :class:`~fsrl_ext.trainer.cost_trainer.CostTrainer` that do not depend on
            the algorithm: test collector, limits, hooks, logger.
        """

    def update_arguments(self) -> dict[str, Any]:
        """Arguments of ``policy.update`` beside the sample size and the buffer."""
        return {}


def named(costs: tuple[str, ...] | None) -> dict[str, Any]:
    """The argument of :func:`fsrl_ext.env.make` for names of costs; none for ``None``."""
    return {} if costs is None else {"costs": costs}


@dataclass(frozen=True, kw_only=True)
class AgentTraining(TrainingConfig):
    """Settings of decisions, images and several agents, which the algorithms for a single task share."""

    action_repeat: int = 1
    """Environment steps that each action lasts for. Rewards and costs of these steps are summed up, and the
    policy learns from one transition for them, so that an action matters more. Discount factors, windows and
    buffer_size count transitions; everything else counts environment steps."""

    network: NetworkKind = "mlp"
    """Networks of actor and critics: ``mlp`` for observations that are vectors of numbers, ``cnn`` for images
    (uint8), which convolutions turn into the inputs of the hidden layers. In on-policy learning also ``gru``,
    for vectors that do not tell the whole state: recurrent networks, which remember the episode."""
    agents: AgentPolicies = "shared"
    """Policies of several agents: one for all of them, which sees an agent's number (``shared``), or one for
    each (``independent``). The critics see the whole team."""
    cost_unit: CostUnit = "team"
    """Costs of several agents: one, of the whole ``team``, or one for each ``agent``, with a limit each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(
            self,
            at_least_one=("action_repeat",),
            choices={
                "agents": get_args(AgentPolicies),
                "cost_unit": get_args(CostUnit),
                "network": get_args(NetworkKind),
            },
        )


def has_simulator(task: str) -> bool:
    """Whether an environment id belongs to a suite of simulators, whose steps ``auto`` gives to processes."""
    name = task.rpartition(":")[2]
    return any(x.id == name and x.suite in SIMULATORS for x in list_tasks())


def train_envs(
    make_env: Callable[[], gym.Env], processes: int, num_envs: int, *, own_share: bool = False
) -> BaseVectorEnv:
    """Training environments in this process, or in some other processes.

    The same seeds give the same episodes in each case, if the environments draw from their own ``np_random``.

    :param processes: other processes; 0 for none.
    :param own_share: whether this process steps a share of the environments beside the others.
    """
    if processes:
        return build_grouped_vector(make_env, num_envs, processes, own_share=own_share)
    return build_vector(DummyVectorEnv, [make_env] * num_envs)
